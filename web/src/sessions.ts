/** How long visits lasted: `session_duration_seconds`, the time for which a document was visible. */

import { SESSION_DURATION_SECONDS } from './contract.gen.js';
import { capturing, flush, mayKeep } from './init.js';
import { add } from './registry.js';
import { safe } from './safe.js';

export type UserType = 'authenticated' | 'anonymous';

/** A hidden page that has not come back by then was ended without a word, as phones do it. */
const GONE_MS = 30 * 60_000;
const PREFIX = 'relay-otel.session.';

let userType: UserType = 'anonymous';

/** Say whether the visitor is logged in; `anonymous` until then. Never an id: there are two values. */
export const setUserType = /* @__PURE__ */ safe((type: UserType): void => {
  userType = type;
});

/** Record a visit that lasted so many seconds. */
export const recordSessionDuration = /* @__PURE__ */ safe((durationSeconds: number): void =>
  add(SESSION_DURATION_SECONDS, durationSeconds, [userType]),
);

/**
 * Record each document's visible time once: when it is left, or, if it ended without a word, when one of the site
 * begins more than 30 minutes later. Visitors who are ended so and never return are not counted.
 */
export const captureSession = /* @__PURE__ */ capturing(() => {
  const key = PREFIX + Math.random();
  const store = storage();
  let ms = 0;
  let since = 0; // while hidden
  let kept = false;

  function pause(): void {
    if (since) ms += Math.max(0, Date.now() - since); // performance.now() stands still in a sleeping laptop
    since = 0;
  }

  /** Take back what was kept; if it is not there, somebody else took us for gone, and has recorded it. */
  function resume(): void {
    if (kept && !store!.getItem(key)) ms = 0;
    if (kept) store!.removeItem(key);
    kept = false;
  }

  const changed = safe((): void => {
    if (document.visibilityState === 'visible') {
      resume();
      since ||= Date.now();
    } else {
      pause();
      if (!store || !ms || !mayKeep()) return;
      store.setItem(key, `${Date.now()} ${ms} ${userType}`);
      kept = true;
    }
  });

  const left = safe((): void => {
    pause();
    resume();
    if (ms) recordSessionDuration(ms / 1000);
    ms = 0;
    // Of a hidden page this is the last event, and the transport may have heard it before us: on `window`, Chromium calls
    // listeners in the order in which they came, capturing or not.
    if (document.visibilityState === 'hidden') flush();
  });

  if (store && mayKeep()) recordGone(store);
  changed();
  document.addEventListener('visibilitychange', changed);
  addEventListener('pagehide', left);
  addEventListener('pageshow', changed); // back from the browser's cache: a visit of its own
  return () => {
    document.removeEventListener('visibilitychange', changed);
    removeEventListener('pagehide', left);
    removeEventListener('pageshow', changed);
    left();
  };
});

function recordGone(store: Storage): void {
  for (const key of Object.keys(store).filter((each) => each.startsWith(PREFIX))) {
    const [hiddenAt, ms, user] = store.getItem(key)?.split(' ') ?? [];
    if (!(Date.now() - Number(hiddenAt) > GONE_MS)) continue;
    store.removeItem(key);
    add(SESSION_DURATION_SECONDS, Number(ms) / 1000, [user]);
  }
}

/** None where the browser forbids it. */
function storage(): Storage | undefined {
  try {
    return localStorage;
  } catch {
    return undefined;
  }
}
