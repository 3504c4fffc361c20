// Generated from contract/metrics.yaml by "make generate". Do not edit.
/** Every metric that browsers send, and the limits that the collector's browser pipeline holds them to. */

import type { Definition, Label } from './definition.js';

/** Counts in one point; the next point goes on. */
export const MOST = 999;
/** A value beyond so many times the highest bound is a broken clock. */
export const BEYOND = 10;
/** What names look like; everything else becomes `other`. */
const TEXT = /^[\p{L}\p{N} /_.:()[\]{}*+-]{1,64}$/u;

const PAGE_NAME: Label = { name: 'page_name', pattern: TEXT, limit: 200 };
const DEVICE_TYPE: Label = { name: 'device_type', members: ['mobile', 'tablet', 'desktop', 'unknown'] };
const BUTTON_NAME: Label = { name: 'button_name', pattern: TEXT, limit: 200 };
const FORM_NAME: Label = { name: 'form_name', pattern: TEXT, limit: 100 };
const FORM_STATUS: Label = { name: 'status', members: ['success', 'error'] };
const USER_TYPE: Label = { name: 'user_type', members: ['authenticated', 'anonymous'] };
const ENDPOINT: Label = { name: 'endpoint', pattern: TEXT, limit: 500 };
const ERROR_TYPE: Label = { name: 'error_type', pattern: TEXT, limit: 50 };
const STATUS_CODE: Label = { name: 'status_code', pattern: /^([1-5][0-9]{2}|unknown)$/, limit: 64 };
const WEB_REASON: Label = { name: 'reason', members: ['queue_full', 'rejected', 'invalid', 'error'] };

/** Time until a page was loaded. */
export const WEB_PAGE_LOAD_TIME_SECONDS: Definition = {
  name: 'web_page_load_time_seconds',
  unit: 's',
  labels: [PAGE_NAME, DEVICE_TYPE],
  bounds: [0.1, 0.2, 0.5, 0.8, 1, 1.8, 2.5, 3, 4, 6, 10, 20, 60],
};

/** Time until the largest element was painted; good up to 2.5, poor above 4. */
export const LARGEST_CONTENTFUL_PAINT_SECONDS: Definition = {
  name: 'largest_contentful_paint_seconds',
  unit: 's',
  labels: [PAGE_NAME],
  bounds: [0.1, 0.2, 0.5, 0.8, 1, 1.8, 2.5, 3, 4, 6, 10, 20, 60],
};

/** Slowest reaction to an interaction; good up to 0.2, poor above 0.5. */
export const INTERACTION_TO_NEXT_PAINT_SECONDS: Definition = {
  name: 'interaction_to_next_paint_seconds',
  unit: 's',
  labels: [PAGE_NAME],
  bounds: [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5],
};

/** How far a page's content jumped, as a score; good up to 0.1, poor above 0.25. */
export const CUMULATIVE_LAYOUT_SHIFT: Definition = {
  name: 'cumulative_layout_shift',
  unit: '',
  labels: [PAGE_NAME],
  bounds: [0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2],
};

/** Delay of the first interaction; good up to 0.1, poor above 0.3. */
export const FIRST_INPUT_DELAY_SECONDS: Definition = {
  name: 'first_input_delay_seconds',
  unit: 's',
  labels: [PAGE_NAME],
  bounds: [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5],
};

/** Time until the first content was painted; good up to 1.8, poor above 3. */
export const FIRST_CONTENTFUL_PAINT_SECONDS: Definition = {
  name: 'first_contentful_paint_seconds',
  unit: 's',
  labels: [PAGE_NAME],
  bounds: [0.1, 0.2, 0.5, 0.8, 1, 1.8, 2.5, 3, 4, 6, 10, 20, 60],
};

/** Time until a page's first byte arrived; good up to 0.8, poor above 1.8. */
export const TIME_TO_FIRST_BYTE_SECONDS: Definition = {
  name: 'time_to_first_byte_seconds',
  unit: 's',
  labels: [PAGE_NAME],
  bounds: [0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.8, 3, 6, 10],
};

/** Clicks on named buttons. */
export const CLICK_EVENT_TOTAL: Definition = {
  name: 'click_event_total',
  unit: '{click}',
  labels: [BUTTON_NAME, PAGE_NAME],
};

/** Submissions of named forms. */
export const FORM_SUBMISSION_TOTAL: Definition = {
  name: 'form_submission_total',
  unit: '{submission}',
  labels: [FORM_NAME, FORM_STATUS],
};

/** How long a visit lasted. */
export const SESSION_DURATION_SECONDS: Definition = {
  name: 'session_duration_seconds',
  unit: 's',
  labels: [USER_TYPE],
  bounds: [1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400],
};

/** API calls that failed as seen by the browser. */
export const API_CALL_ERRORS_CLIENT_TOTAL: Definition = {
  name: 'api_call_errors_client_total',
  unit: '{error}',
  labels: [ENDPOINT, ERROR_TYPE, STATUS_CODE],
};

/** Measurements the browser package gave up. */
export const RELAY_WEB_DROPPED_TOTAL: Definition = {
  name: 'relay_web_dropped_total',
  unit: '{measurement}',
  labels: [WEB_REASON],
};
