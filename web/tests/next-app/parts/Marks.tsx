'use client';

import { flush, recordButtonClick } from '@relay-otel/web';
import { useButtonClick } from '@relay-otel/web/react';
import { useRouter } from 'next/navigation';
import { useEffect } from 'react';

declare global {
  var arrived: string[] | undefined;
}

/** What a page does that measures: as it appears, when it is used, and to go elsewhere. */
export function Marks() {
  const router = useRouter();
  const liked = useButtonClick('like');
  useEffect(() => {
    recordButtonClick('arrived');
    globalThis.arrived = [...(globalThis.arrived ?? []), location.pathname];
  }, []);
  return (
    <p>
      <button type="button" data-relay-click="buy">
        Buy
      </button>
      <button type="button" onClick={liked}>
        Like
      </button>
      <button type="button" onClick={() => router.push('/cart')}>
        Go to the cart
      </button>
      <button type="button" onClick={() => fetch('/api/item/42')}>
        Ask in vain
      </button>
      <button type="button" onClick={() => flush()}>
        Send
      </button>
    </p>
  );
}
