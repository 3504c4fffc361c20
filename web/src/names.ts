/** Names of pages from React's components and from its routers; which of them holds, and for how long. */

import { useEffect, useInsertionEffect, useLayoutEffect, useState } from 'react';

import { leavePage, namePage, setPageName } from './pages.js';

/** Names that components give, by how far inside they stand; and the router's, which holds where there is none. */
const given = new Map<number, string>();
let routed: string | undefined;

const innermost = (): string | undefined => given.get(Math.max(...given.keys()));

/** Parents render before their children, and what comes later belongs to what was shown later. */
let renders = 0;
const nextPlace = (): number => ++renders;

/** React 18 warns of layout effects on servers, where no effect runs. */
const useShown = typeof document === 'undefined' ? useEffect : useLayoutEffect;

/** Name the page while this component is shown: `/item/[id]`, or a router's own pattern. The innermost name holds. */
export function usePageName(name: string | undefined): void {
  const [place] = useState(nextPlace);
  // Before effects, in which a component may record what belongs to the new page. An insertion effect would be earlier,
  // and is not undone when an <Activity> hides the component.
  useShown(() => {
    if (name === undefined) return undefined;
    given.set(place, name);
    setPageName(innermost());
    return () => {
      given.delete(place);
      leavePage(name, innermost() ?? routed);
    };
  }, [name, place]);
}

/** The name that a router gives to a path: where no component gives one. */
export function useRoute(name: string | undefined, path: string): void {
  // Before the effects of all that the route shows.
  useInsertionEffect(() => {
    if (name === undefined) return undefined;
    routed = name;
    namePage(name, address(path));
    return () => {
      routed = undefined;
      leavePage(name);
    };
  }, [name, path]);
  // Of what is no longer shown, nothing is left by now.
  useShown(() => {
    if (given.size) namePage(innermost(), address(path));
  }, [name, path]);
}

/** A path as the address bar has it: routers leave out what an app lies below, and the slash at the end. */
function address(path: string): string {
  const bare = (each: string): string => each.replace(/\/$/, '');
  return bare(location.pathname).endsWith(bare(path)) ? location.pathname : path;
}
