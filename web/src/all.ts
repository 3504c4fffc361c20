/** Everything that measures by itself. */

import { captureClicks } from './clicks.js';
import { captureErrors } from './errors.js';
import { capturePageLoad } from './loads.js';
import { captureSession } from './sessions.js';
import { recordCoreWebVitals, type VitalsOptions } from './vitals.js';

/** Measure the page load, the web vitals, failing `fetch`es, the visit, and clicks on `data-relay-click`. */
export function captureAll(options: VitalsOptions = {}): void {
  capturePageLoad();
  recordCoreWebVitals(options);
  captureErrors();
  captureSession();
  captureClicks();
}
