/** A path and its parameters in; the route's pattern out, as far as it is certain. */

import { template } from './pages.js';

export type Params = Readonly<Record<string, string | readonly string[] | undefined>> | null;

/**
 * `/item/42` and `{id: '42'}` are `/item/[id]`. Where a value stands in two places, its own is unknown: what looks like
 * an id is then replaced by `[id]`, as everywhere.
 */
export function routeOf(pathname: string | null, params: Params): string | undefined {
  if (pathname === null) return undefined;
  let segments = pathname.split('/').filter(Boolean);
  for (const [name, value] of Object.entries(params ?? {})) {
    if (value === undefined) continue;
    const wanted = (Array.isArray(value) ? value : [value]).map(decoded);
    const places = segments.flatMap((_, i) =>
      wanted.length && wanted.every((each, n) => decoded(segments[i + n]) === each) ? [i] : [],
    );
    if (places.length !== 1) continue;
    const pattern = Array.isArray(value) ? `[...${name}]` : `[${name}]`;
    segments = [...segments.slice(0, places[0]), pattern, ...segments.slice(places[0]! + wanted.length)];
  }
  return template(`/${segments.join('/')}`);
}

/** Next gives parameters as they stand in the address, or decoded; which of them depends on its version. */
function decoded(segment: string | undefined): string | undefined {
  try {
    return segment && decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
