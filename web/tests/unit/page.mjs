/** As little of a browser as the package asks for: a document, a window's events, and a server that answers. */

import { setImmediate } from 'node:timers';

let copies = 0;

/** A new copy of the package, all of it, with a state of its own. */
export const freshPackage = () => import(`../../dist/relay-web.js?${copies++}`);

/** A new copy of one module that keeps a state, such as the registry. */
export const fresh = (module) => import(`../../dist/${module}.js?${copies++}`);

/**
 * Opens a page at `path` until the test ends. Each POST takes the first of `answers`, and the last one stays: a status,
 * [status, headers], or a function that does what `fetch` would.
 */
export function openPage(test, { path = '/', answers = [200], agent = 'Firefox' } = {}) {
  const page = new Page(path, answers, agent);
  const names = ['document', 'location', 'navigator', 'addEventListener', 'removeEventListener', 'fetch'];
  const before = names.map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  for (const name of names)
    Object.defineProperty(globalThis, name, { value: page[name], writable: true, configurable: true });
  test.mock.method(console, 'warn', (sentence) => page.warned.push(sentence));
  test.after(() => {
    for (const [name, descriptor] of before) {
      delete globalThis[name];
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
    }
  });
  return page;
}

class Page {
  /** Each request: { url, at, body, ...what fetch was given }. */
  requests = [];
  warned = [];

  constructor(path, answers, agent) {
    this.answers = [...answers];
    this.location = new URL(path, 'https://relay.example');
    this.navigator = { userAgent: agent, webdriver: false, onLine: true, maxTouchPoints: 0 };
    this.document = Object.assign(new EventTarget(), {
      baseURI: this.location.href,
      visibilityState: 'visible',
      readyState: 'complete',
    });
    const window = new EventTarget();
    this.addEventListener = window.addEventListener.bind(window);
    this.removeEventListener = window.removeEventListener.bind(window);
    this.happens = (type, target = window) => target.dispatchEvent(new Event(type));
    this.fetch = (url, request) => {
      const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
      this.requests.push({ url, at: Date.now(), ...request, answer, body: JSON.parse(request.body) });
      if (typeof answer === 'function') return answer(url, request);
      const [status, headers] = [answer].flat();
      return Promise.resolve(new Response(null, { status, headers }));
    };
  }

  hide() {
    this.document.visibilityState = 'hidden';
    this.happens('visibilitychange', this.document);
  }

  /** What the server has taken, or what it was asked to take: { `metric{label values}`: count }. */
  counts(requests = this.requests.filter(({ answer }) => answer === 200)) {
    const counts = {};
    for (const { name, values, count } of requests.flatMap(({ body }) => points(body))) {
      const key = `${name}{${values.join(', ')}}`;
      counts[key] = (counts[key] ?? 0) + count;
    }
    return counts;
  }
}

/** Resolves when all promises that can go on have gone on. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

export function points(body) {
  return body.resourceMetrics[0].scopeMetrics[0].metrics.flatMap(({ name, sum, histogram }) =>
    (sum ?? histogram).dataPoints.map((point) => ({
      name,
      values: point.attributes.map(({ value }) => value.stringValue),
      count: Number(point.asInt ?? point.count),
      sum: point.sum,
      buckets: point.bucketCounts?.map(Number),
    })),
  );
}

/** The same numbers in each run (mulberry32): a failure can be looked at again. */
export function dice(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, below: (n) => Math.floor(next() * n), of: (list) => list[Math.floor(next() * list.length)] };
}
