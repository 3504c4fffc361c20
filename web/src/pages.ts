/**
 * Paths in; names of pages out, never a URL. In this order: what `setPageName` said, the app's `routes`, and the path
 * with everything that looks like an id replaced by `[id]`.
 */

import { safe } from './safe.js';

/** Paths remembered by name; a visit has few. */
const MOST_NAMES = 200;

let routes: readonly string[] = [];
let current: string | undefined;
const names = new Map<string, string>();

/**
 * Name the page that is shown, until the next call; `undefined` goes back to its path.
 * A route's template, such as `/item/[id]`, or a word, such as `chat`.
 */
export const setPageName = /* @__PURE__ */ safe((name: string | undefined): void => namePage(name, location.pathname));

/** The same where the path is known better than the address bar knows it: a router may write that later. */
export function namePage(name: string | undefined, path: string): void {
  current = name;
  if (name !== undefined && names.size < MOST_NAMES) names.set(path, name);
}

/** Go back to another name, or to the path, unless the next page has its name already. */
export function leavePage(name: string, instead?: string): void {
  if (current === name) current = instead;
}

export function setRoutes(patterns: readonly string[]): void {
  routes = patterns;
}

/** The name of the page that is shown. */
export const pageName = (): string => current ?? template(location.pathname);

/** The name of the page at a URL of this visit, also after it was left. */
export function pageOf(url: string): string {
  const { pathname } = new URL(url, location.href);
  return names.get(pathname) ?? template(pathname);
}

/** The URL that this document was loaded from; a router may have changed the address since. */
export const landingUrl = (): string => performance.getEntriesByType('navigation')[0]?.name ?? location.href;

/** A path's route, as far as the path itself tells. */
export function template(path: string): string {
  const segments = path.split(/[?#]/, 1)[0]!.split('/').filter(Boolean);
  return byRoute(segments) ?? `/${segments.map((each) => (ID.test(each) ? '[id]' : each)).join('/')}`;
}

/** Digits, encoded, an address, hexadecimal, over 9 characters with a digit, or over 32; never a router's own `[word]`. */
const ID = /^(?!\[)(\d+$|.*[%@]|[0-9a-f-]{8,}$|(?=.*\d).{10}|.{33})/i;

/** The pattern that fits with the most fixed segments: `[id]`, `:id` or `{id}` is one, `[...rest]` one or more. */
function byRoute(segments: readonly string[]): string | undefined {
  let best: string | undefined;
  let most = -1;
  for (const route of routes) {
    const parts = route.split('/').filter(Boolean);
    const fixed = parts.filter((part) => !/^[[:{]/.test(part)).length - +route.includes('...') / 2;
    if (fixed > most && fits(parts, segments)) [best, most] = [route, fixed];
  }
  return best;
}

function fits(parts: readonly string[], segments: readonly string[]): boolean {
  for (const [i, part] of parts.entries()) {
    if (part.startsWith('[[...')) return true;
    if (part.startsWith('[...')) return segments.length > i;
    if (!(/^[[:{]/.test(part) ? segments[i] : segments[i] === part)) return false;
  }
  return parts.length === segments.length;
}
