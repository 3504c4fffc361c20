import { Marks } from '../../../parts/Marks';

export default function Cart() {
  return (
    <>
      <h1>Cart</h1>
      <Marks />
    </>
  );
}
