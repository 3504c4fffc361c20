/** Core Web Vitals: one histogram for each, one observation for each view of a page. */

import { type MetricType, onCLS, onFCP, onINP, onLCP, onTTFB } from 'web-vitals';

import {
  CUMULATIVE_LAYOUT_SHIFT,
  FIRST_CONTENTFUL_PAINT_SECONDS,
  FIRST_INPUT_DELAY_SECONDS,
  INTERACTION_TO_NEXT_PAINT_SECONDS,
  LARGEST_CONTENTFUL_PAINT_SECONDS,
  TIME_TO_FIRST_BYTE_SECONDS,
} from './contract.gen.js';
import type { Definition } from './definition.js';
import { landingUrl, pageOf } from './pages.js';
import { add, isOff, later } from './registry.js';
import { safe } from './safe.js';

export interface VitalsOptions {
  /**
   * Measure each route of a single page app as a view of its own, where the browser can (Chromium 151 and newer). Off,
   * as in Chrome's own statistics: a route's paint is quicker than a page's, and mixing them moves every percentile.
   */
  readonly softNavigations?: boolean;
}

let begun = false;

/** Measure LCP, CLS, INP, FCP, TTFB and FID of this page. Call it once, early; a second call does nothing. */
export const recordCoreWebVitals = /* @__PURE__ */ safe(({ softNavigations = false }: VitalsOptions = {}): void => {
  if (begun || isOff()) return;
  begun = true;
  const options = { reportSoftNavs: softNavigations };
  onLCP(once(LARGEST_CONTENTFUL_PAINT_SECONDS), options);
  onINP(once(INTERACTION_TO_NEXT_PAINT_SECONDS), options);
  onCLS(once(CUMULATIVE_LAYOUT_SHIFT), options);
  onFCP(once(FIRST_CONTENTFUL_PAINT_SECONDS), options);
  onTTFB(once(TIME_TO_FIRST_BYTE_SECONDS), options);
  observeFirstInput();
});

/**
 * A vital is reported again each time the page is hidden and it has grown since, under the same id. A histogram cannot
 * be corrected, so the first report counts.
 */
function once(definition: Definition): (metric: MetricType) => void {
  const ids = new Set<string>();
  return safe(({ id, name, value, navigationType, navigationURL }: MetricType): void => {
    // A route has no first byte of its own: it is reported as 0.
    if (ids.has(id) || (name === 'TTFB' && navigationType === 'soft-navigation')) return;
    ids.add(id);
    record(definition, definition.unit ? value / 1000 : value, navigationURL);
  });
}

/** web-vitals has dropped FID; the guide's metric stays until nobody looks at it. */
function observeFirstInput(): void {
  if (!PerformanceObserver.supportedEntryTypes.includes('first-input')) return;
  let hiddenAt =
    document.visibilityState === 'hidden' && !(document as { prerendering?: boolean }).prerendering ? 0 : Infinity;
  addEventListener(
    'visibilitychange',
    ({ timeStamp }) => {
      if (document.visibilityState === 'hidden') hiddenAt = Math.min(hiddenAt, timeStamp);
    },
    true,
  );
  const observer = new PerformanceObserver(
    safe((list): void => {
      const [first] = list.getEntries() as PerformanceEventTiming[];
      if (!first) return;
      observer.disconnect();
      // What waited while nobody looked is no delay.
      if (first.startTime < hiddenAt)
        record(FIRST_INPUT_DELAY_SECONDS, (first.processingStart - first.startTime) / 1000);
    }),
  );
  observer.observe({ type: 'first-input', buffered: true });
}

/** Under the name of the page that was loaded, even when another is shown by now. */
function record(definition: Definition, value: number, url = landingUrl()): void {
  later(() => add(definition, value, [pageOf(url)]));
}
