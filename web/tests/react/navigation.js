/** What RelayRoutes asks of next/navigation.js, told by the test instead of a router: `go(path, params)`. */

import { useSyncExternalStore } from 'react';

let route = { path: '/', params: {} };
const listeners = new Set();
const subscribe = (listener) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};
const useRoute = () =>
  useSyncExternalStore(
    subscribe,
    () => route,
    () => route,
  );

export const usePathname = () => useRoute().path;
export const useParams = () => useRoute().params;

export function go(path, params = {}) {
  route = { path, params };
  for (const listener of listeners) listener();
}
