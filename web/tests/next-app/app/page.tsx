import { Marks } from '../parts/Marks';

export default function Home() {
  return (
    <>
      <h1>Home</h1>
      <Marks />
    </>
  );
}
