/** A path and its parameters in; the route's pattern out, as far as it is certain. */

import { template } from './pages.js';

export type Params = Readonly<Record<string, string | readonly string[] | undefined>> | null;

/**
 * `/item/42` and `{id: '42'}` are `/item/[id]`. Where a value stands in more places than there are parameters with it,
 * its own is unknown: what looks like an id is then replaced by `[id]`, as everywhere.
 */
export function routeOf(pathname: string | null, params: Params): string | undefined {
  if (pathname === null) return undefined;
  let segments = pathname.split('/').filter(Boolean);
  const values = Object.entries(params ?? {}).map(([name, value = []]) => ({
    pattern: Array.isArray(value) ? `[...${name}]` : `[${name}]`,
    wanted: (Array.isArray(value) ? value : [value]).map(decoded),
  }));
  for (const { pattern, wanted } of values) {
    const places = segments.flatMap((_, i) =>
      wanted.length && wanted.every((each, n) => decoded(segments[i + n]) === each) ? [i] : [],
    );
    // The same value twice, as in /compare/red/red: routers give parameters in the order of the path.
    const alike = values.filter((other) => !segments.includes(other.pattern) && `${other.wanted}` === `${wanted}`);
    if (places.length !== alike.length) continue;
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
