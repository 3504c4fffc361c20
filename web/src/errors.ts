/** API calls that failed, as the browser saw it: `api_call_errors_client_total`. */

import { API_CALL_ERRORS_CLIENT_TOTAL } from './contract.gen.js';
import { capturing, isOurs } from './init.js';
import { template } from './pages.js';
import { add } from './registry.js';
import { safe } from './safe.js';

/**
 * Count a failed call.
 *
 * @param endpoint a path; ids in it become `[id]`, and its query is cut off.
 * @param errorType a word, such as `http_5xx`, `network` or `timeout`.
 * @param statusCode `unknown` where there was no answer.
 */
export const recordAPIError = /* @__PURE__ */ safe((endpoint: string, errorType: string, statusCode?: number): void =>
  add(API_CALL_ERRORS_CLIENT_TOTAL, 1, [
    endpoint.startsWith('/') ? template(endpoint) : endpoint,
    errorType,
    statusCode || 'unknown',
  ]),
);

type Fetch = typeof globalThis.fetch;
const MARK = Symbol.for('@relay-otel/web');

/**
 * Count what `fetch` does not get: statuses from 400, and no answer at all unless the page itself gave up. Another
 * origin is counted by its host. The caller gets the very promise and response that it would have got; since we look at
 * that promise too, one that the caller never looks at is no `unhandledrejection` any more.
 */
export const captureErrors = /* @__PURE__ */ capturing(() => {
  const original = globalThis.fetch;
  // A second copy of this package would count everything twice.
  if (MARK in original) return () => {};

  const failed = safe((target: Parameters<Fetch>[0], type: string, status?: number): void => {
    const { href, origin, pathname, host, searchParams } = new URL(
      (target as Request)?.url ?? target,
      document.baseURI,
    );
    // Next.js fetches pages ahead, and gives up many of them.
    if (isOurs(href) || searchParams.has('_rsc')) return;
    recordAPIError(origin === location.origin ? pathname : host, type, status);
  });

  function fetch(this: unknown, ...request: Parameters<Fetch>): Promise<Response> {
    const answered = original.apply(this as typeof globalThis, request);
    answered?.then?.(
      (answer) => {
        const status = answer?.status;
        if (status >= 400) failed(request[0], status < 500 ? 'http_4xx' : 'http_5xx', status);
      },
      (reason: unknown) => {
        const name = (reason as Error | undefined)?.name;
        const signal = request[1]?.signal ?? (request[0] as Request)?.signal;
        if (name === 'TimeoutError') failed(request[0], 'timeout');
        // A page that is left fails what is under way, after pagehide (measured); its timers never run.
        else if (!signal?.aborted) setTimeout(failed, 0, request[0], 'network');
      },
    );
    return answered;
  }

  globalThis.fetch = Object.assign(fetch, { [MARK]: true });
  return () => {
    // Whoever wrapped it after us keeps us; then we stay, and the registry is off.
    if (globalThis.fetch === fetch) globalThis.fetch = original;
  };
});
