import Link from 'next/link';
import { useRouter } from 'next/router';
import { Marks } from '../../parts/Marks';

export const getServerSideProps = () => ({ props: {} });

export default function Legacy() {
  const { query } = useRouter();
  return (
    <>
      <h1>{query.slug}</h1>
      <Marks />
      <Link href="/legacy/second">/legacy/second</Link>
    </>
  );
}
