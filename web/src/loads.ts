/** How long pages took to load: `web_page_load_time_seconds`. */

import { WEB_PAGE_LOAD_TIME_SECONDS } from './contract.gen.js';
import { deviceType } from './device.js';
import { capturing } from './init.js';
import { landingUrl, pageOf } from './pages.js';
import { add, later } from './registry.js';
import { safe } from './safe.js';

/** Record that a page took so many milliseconds, e.g. `performance.now()` when it can be used. */
export const recordPageLoad = /* @__PURE__ */ safe((pageName: string, loadTimeMs: number): void =>
  add(WEB_PAGE_LOAD_TIME_SECONDS, loadTimeMs / 1000, [pageName, deviceType()]),
);

/** Record the load of this document, when it has ended. One that is rendered ahead counts once it is shown. */
export const capturePageLoad = /* @__PURE__ */ capturing(() => {
  const loaded = safe((): void => {
    const entry = performance.getEntriesByType('navigation')[0] as PerformanceNavigationTiming & {
      activationStart?: number;
    };
    const ms = Math.max(0, entry.loadEventEnd - (entry.activationStart ?? 0));
    const device = deviceType(); // now: tools that play another device stop playing before the page's end
    later(() => add(WEB_PAGE_LOAD_TIME_SECONDS, ms / 1000, [pageOf(landingUrl()), device]));
  });
  const after = (): unknown => setTimeout(loaded); // loadEventEnd is 0 until all its listeners have run
  const shown = (): unknown =>
    document.readyState === 'complete' ? after() : addEventListener('load', after, { once: true });
  if ((document as { prerendering?: boolean }).prerendering)
    document.addEventListener('prerenderingchange', shown, { once: true });
  else shown();
  return () => removeEventListener('load', after);
});
