'use client';
/** Names of pages from Next.js' App Router. In the Pages Router `usePageName(router.pathname)` of `./react` is all. */

import { useParams, usePathname } from 'next/navigation.js';
import { createElement, type ReactElement, Suspense } from 'react';

import { useRoute } from './names.js';
import { routeOf } from './route.js';

/** In the root layout: `<RelayRoutes />`. Renders nothing. */
export function RelayRoutes(): ReactElement {
  // With cacheComponents the hooks wait for the request; without a boundary of its own the whole page would.
  return createElement(Suspense, null, createElement(Route));
}

function Route(): null {
  const path = usePathname();
  useRoute(routeOf(path, useParams()), path ?? '/');
  return null;
}
