/** `@relay-otel/web`: what a page measures, and how it begins. Importing it does nothing. */

export { captureAll } from './all.js';
export { captureClicks, recordButtonClick } from './clicks.js';
export { captureErrors, recordAPIError } from './errors.js';
export { type FormStatus, recordFormSubmission } from './forms.js';
export { flush, type Handle, init, type Options, shutdown } from './init.js';
export { capturePageLoad, recordPageLoad } from './loads.js';
export { setPageName } from './pages.js';
export { captureSession, recordSessionDuration, setUserType, type UserType } from './sessions.js';
export { recordCoreWebVitals, type VitalsOptions } from './vitals.js';
