/**
 * Deltas in; POSTs out. What was not taken is counted again, so that nothing is lost while the page lives:
 * the offline queue is the registry itself, and it is as small as the number of series.
 */

import { type Body, encode, POINTS_A_BODY } from './otlp.js';
import { drop, giveBack, size, take, watch } from './registry.js';
import { safe, say } from './safe.js';

export interface Transport {
  /** Send what is there; resolves when all of it was answered. */
  flush(): Promise<void>;
  stop(): Promise<void>;
}

/** fetch(keepalive) takes 64 KiB of a page's requests at once; some is left to the page. */
const KEEPALIVE_BYTES = 60_000;
/** A server that is down is asked no less than so often. */
const MOST_WAIT_MS = 300_000;
/** Answers that mean "not taken, ask again". https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes */
const RETRYABLE = [429, 502, 503, 504];

/** Send to `url` every `interval` ms where there is something, when much is there, and when the page is left. */
export function openTransport(url: string, interval: number, mayLeave: () => boolean): Transport {
  // The page's own fetch, even where somebody watches fetch, as we do: our requests are no API calls.
  const post = globalThis.fetch;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let bytesUnderWay = 0;
  let failures = 0;
  let notBefore = 0;
  const underWay = new Set<Promise<void>>();

  function send({ text, points }: Body, bytes: number, keepalive: boolean): void {
    bytesUnderWay += bytes;
    const request: RequestInit = {
      method: 'POST',
      body: text,
      headers: { 'content-type': 'application/json' },
      keepalive,
      credentials: 'omit',
      referrerPolicy: 'no-referrer',
      redirect: 'error', // a login page would say 200 to a body that it never read
    };
    // In a promise, since somebody's stand-in for fetch may throw.
    const sent: Promise<void> = new Promise<Response>((resolve) => resolve(post(url, request)))
      .then((answer) => {
        if (answer.ok) failures = 0;
        else if (RETRYABLE.includes(answer.status)) again(points, answer.headers.get('retry-after'));
        else {
          say(`${url} answered ${answer.status}: is it the collector's browser receiver? Measurements are given up.`);
          drop(
            'rejected',
            points.reduce((sum, point) => sum + point.count, 0),
          );
          again([], null); // what was dropped is told later, and less and less often where nobody takes that either
        }
      })
      .catch(() => {
        say(`${url} cannot be reached: is it right, and does connect-src allow it? Measurements wait.`);
        again(points, null);
      })
      .finally(() => {
        bytesUnderWay -= bytes;
        underWay.delete(sent);
      });
    underWay.add(sent);
  }

  function again(points: Body['points'], retryAfter: string | null): void {
    giveBack(points);
    const told = Number(retryAfter) * 1000; // collectors give seconds, never a date
    // Up to half as long again by chance, so that a thousand pages do not come back together.
    const chosen = interval * 2 ** Math.min(++failures, 10) * (1 + Math.random() / 2);
    const wait = Math.min(told > 0 ? told : chosen, MOST_WAIT_MS);
    notBefore = Date.now() + wait;
    plan(wait);
  }

  function plan(wait = interval): void {
    timer ??= setTimeout(() => {
      timer = undefined;
      flush();
    }, wait);
  }

  /** Synchronous up to the fetch: what is begun later is lost with the page. */
  const flush = safe((leaving = false): void => {
    if (!size() || !mayLeave()) return;
    if (!leaving && (Date.now() < notBefore || navigator.onLine === false)) return plan();
    for (const body of encode(take(), Date.now())) {
      const bytes = new Blob([body.text]).size;
      const fits = bytesUnderWay + bytes <= KEEPALIVE_BYTES;
      if (fits || leaving || !bytesUnderWay) send(body, bytes, fits);
      else giveBack(body.points);
    }
    if (size()) plan();
  });

  function online(): void {
    notBefore = 0;
    flush();
  }

  // On `document`, where web-vitals (on `window`, capturing) has reported by then.
  const hidden = (): void => {
    if (document.visibilityState === 'hidden') flush(true);
  };
  const left = (): void => flush(true);
  document.addEventListener('visibilitychange', hidden);
  addEventListener('pagehide', left);
  addEventListener('online', online);
  watch(() => (size() < POINTS_A_BODY || bytesUnderWay ? plan() : flush()));
  if (size()) plan();

  const drained = async (): Promise<void> => {
    flush(true);
    await Promise.all(underWay);
  };
  return {
    flush: drained,
    stop() {
      document.removeEventListener('visibilitychange', hidden);
      removeEventListener('pagehide', left);
      removeEventListener('online', online);
      const last = drained();
      watch(() => {});
      mayLeave = () => false; // what comes back from now on is the next one's
      clearTimeout(timer);
      return last;
    },
  };
}
