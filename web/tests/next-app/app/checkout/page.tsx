'use client';

import { usePageName } from '@relay-otel/web/react';
import { Marks } from '../../parts/Marks';

export default function Checkout() {
  usePageName('paying');
  return (
    <>
      <h1>Checkout</h1>
      <Marks />
    </>
  );
}
