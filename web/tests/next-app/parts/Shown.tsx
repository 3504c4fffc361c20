import { Suspense } from 'react';
import { Marks } from './Marks';

/** A page whose content is known with the request, as most are. */
export function Shown({ params }: { params: Promise<object> }) {
  return (
    <Suspense fallback={<h1>One moment</h1>}>
      <Content params={params} />
    </Suspense>
  );
}

async function Content({ params }: { params: Promise<object> }) {
  return (
    <>
      <h1>
        {decodeURIComponent(
          Object.values(await params)
            .flat()
            .join(', '),
        )}
      </h1>
      <Marks />
    </>
  );
}
