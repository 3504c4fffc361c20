/**
 * What the browser tests stand on: a Chromium, sites that it visits, and collectors that remember what they were sent.
 *
 *   const chromium = await launch();
 *   const collector = new Collector();
 *   const site = await serve({ '/item/42': page('relay.init({ allowBots: true }); relay.captureAll();') }, collector);
 *   const tab = await chromium.visit(`${site.origin}/item/42`);
 *   await tab.close();
 *   await collector.until((counts) => counts['session_duration_seconds{anonymous}']);
 */

import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

const PACKAGE = new URL('../../dist/relay-web.js', import.meta.url);

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-extensions',
  '--disable-field-trial-config',
  // A hidden tab's timers run as a shown tab's do: tests wait for what happens, not for how long it takes.
  '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
  '--mute-audio',
  '--no-startup-window',
  '--remote-debugging-port=0',
];

/**
 * Safari has no requestIdleCallback. Where there is one, web-vitals looks at an interaction when the page is idle, or after
 * a second; of a page that is left before there is no INP (web-vitals 6.2.3).
 */
const notIdle = () => delete window.requestIdleCallback;

/** A Chromium of Debian's, or of the variable CHROMIUM. */
export async function launch() {
  const profile = await mkdtemp(join(tmpdir(), 'relay-web-'));
  const program = process.env.CHROMIUM ?? '/usr/bin/chromium';
  const child = spawn(program, [...FLAGS, `--user-data-dir=${profile}`], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(child, 'exit');
  let address;
  for await (const line of createInterface(child.stderr)) {
    address = line.match(/DevTools listening on (ws:\S+)/)?.[1];
    if (address) break;
  }
  if (!address) throw new Error(`${program} did not start; set CHROMIUM to a Chromium.`);
  child.stderr.resume();
  // Without Playwright's defaults, which make every tab believe that it is shown, in the window that is already there.
  const browser = await chromium.connectOverCDP(address, { noDefaults: true });
  const session = await browser.newBrowserCDPSession();
  const [window] = browser.contexts();
  window.setDefaultTimeout(20_000);
  await window.addInitScript(notIdle);

  return {
    browser,

    /** A visitor with no past, and the page that they visit. All visitors are looking at their pages, all the time. */
    async visit(url, options = {}) {
      const context = await browser.newContext(options);
      context.setDefaultTimeout(20_000);
      await context.addInitScript(notIdle);
      const tab = await context.newPage();
      if (url) await tab.goto(url);
      return tab;
    },

    /**
     * A tab of the one window: only the last one that was opened, or brought to the front, is shown, and the others are
     * hidden as a visitor's are. Going back restores a page from the cache. They share a visitor: use one site each.
     */
    async tab(url) {
      const tab = await window.newPage();
      await tab.bringToFront();
      if (url) await tab.goto(url);
      return tab;
    },

    async close() {
      await session.send('Browser.close').catch(() => {}); // the answer is lost where it closes first
      await exited;
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** An HTML page with the package as `relay`, and `script` after it. */
export function page(script = '', body = '<h1>A page with something to see</h1><button>Send</button>') {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>Page</title></head>
<body>${body}
<script>window.said = []; window.thrown = [];
addEventListener('error', ({ message }) => thrown.push(message));
addEventListener('unhandledrejection', ({ reason }) => thrown.push(String(reason)));</script>
<script type="module">
import * as relay from '/relay-web.js';
window.relay = relay;
${script}
window.ready = true;
</script></body></html>`;
}

/**
 * A site with these pages. A page is a text, or a function (request, response) => text | undefined, which may answer by
 * itself. Everything below /otel is the collector's.
 */
export async function serve(pages, collector) {
  const files = { '/relay-web.js': await readFile(PACKAGE, 'utf8') };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://site');
    if (collector && pathname.startsWith('/otel')) return collector.answer(request, response);
    const found = pages[pathname] ?? files[pathname];
    const content = typeof found === 'function' ? found(request, response) : found;
    if (response.headersSent || response.writableEnded || request.destroyed) return undefined;
    if (content === undefined) return typeof found === 'function' ? undefined : response.writeHead(404).end('Not here');
    response.setHeader('content-type', pathname.endsWith('.js') ? 'text/javascript' : 'text/html');
    response.setHeader('access-control-allow-origin', '*'); // a sandboxed frame is nobody's
    return response.end(content);
  });
  return listen(server);
}

async function listen(server) {
  server.keepAliveTimeout = 0; // a socket that the server closes at the moment of a request is a request that failed
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    host: `127.0.0.1:${server.address().port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/**
 * Remembers what it was sent. How it answers is a list of statuses, `hang` and `reset`, one for each POST, of which the
 * last stays: 200 unless given.
 */
export class Collector extends EventEmitter {
  /** Every POST: { body, headers, status }, in the order of arrival. */
  posts = [];
  preflights = 0;
  /** Those that were answered, or that the browser has given up. */
  preflightsOver = 0;

  constructor({ answers = [200], headers = {}, preflightMs = 0 } = {}) {
    super();
    this.setMaxListeners(0);
    Object.assign(this, { answers, headers, preflightMs });
  }

  /** On an origin of its own, to which browsers come by CORS. */
  async listen() {
    return listen(createServer((request, response) => this.answer(request, response)));
  }

  async answer(request, response) {
    response.setHeader('access-control-allow-origin', request.headers.origin ?? '*');
    response.setHeader('access-control-allow-headers', 'content-type');
    response.setHeader('access-control-expose-headers', 'retry-after');
    if (request.method === 'OPTIONS') {
      this.preflights += 1;
      response.on('close', () => {
        this.preflightsOver += 1;
        this.emit('change');
      });
      setTimeout(() => response.writeHead(204).end(), this.preflightMs);
      return;
    }
    let text = '';
    request.setEncoding('utf8');
    try {
      for await (const part of request) text += part;
    } catch {
      return; // broken off by the browser, or by the end of the test
    }
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    this.posts.push({ text, body: JSON.parse(text), headers: request.headers, url: request.url, status: answer });
    if (answer === 'reset') request.socket.destroy();
    else if (answer !== 'hang') response.writeHead(answer, this.headers).end('{}');
    this.emit('change');
  }

  /** What it has taken: the count of each `metric{label values}`. */
  counts(posts = this.posts.filter(({ status }) => status === 200)) {
    return Object.fromEntries(Object.entries(this.series(posts)).map(([name, { count }]) => [name, count]));
  }

  /** The same with the sums. */
  series(posts = this.posts.filter(({ status }) => status === 200)) {
    const all = {};
    for (const [name, count, sum] of posts.flatMap(({ body }) => points(body))) {
      all[name] ??= { count: 0, sum: 0 };
      const one = all[name];
      one.count += count;
      one.sum += sum;
    }
    return all;
  }

  /** Resolves once this says yes; after 20 seconds tells what there was instead. */
  async until(condition) {
    const patience = AbortSignal.timeout(20_000);
    while (!condition(this.counts(), this)) {
      await once(this, 'change', { signal: patience }).catch(() => {
        const answers = this.posts.map(({ status }) => status);
        throw new Error(`waited in vain for ${condition}; answered ${answers}, took ${JSON.stringify(this.counts())}`);
      });
    }
  }
}

/**
 * For `until`: there is all of this, and maybe more. A page that is left sends two POSTs at once, which arrive in any
 * order: who waits for a part of them has not waited for the rest.
 */
export const all = (expected) => (counts) => Object.entries(expected).every(([name, count]) => counts[name] >= count);

/** [`metric{label values}`, count, sum] of each point. */
export function points(body) {
  return body.resourceMetrics.flatMap(({ scopeMetrics }) =>
    scopeMetrics.flatMap(({ metrics }) =>
      metrics.flatMap(({ name, sum, histogram }) =>
        (sum ?? histogram).dataPoints.map((point) => {
          const labels = point.attributes.map(({ value }) => value.stringValue).join(', ');
          const count = Number(point.asInt ?? point.count);
          return [`${name}{${labels}}`, count, point.sum ?? count];
        }),
      ),
    ),
  );
}

/** Resolves once the browser has told the page of such an entry. */
export async function observed(tab, type) {
  await tab.evaluate(
    (type) => new Promise((resolve) => new PerformanceObserver(() => resolve()).observe({ type, buffered: true })),
    type,
  );
}

/** Resolves once the page was loaded and painted. */
export async function shown(tab) {
  await tab.waitForFunction(() => window.ready && performance.getEntriesByType('navigation')[0].loadEventEnd > 0);
  await observed(tab, 'paint');
  await observed(tab, 'largest-contentful-paint');
}

/** Click, and wait until it is measured. */
export async function click(tab, selector) {
  await tab.click(selector);
  await measured(tab);
}

/** Resolves once the browser has told of the first click, and web-vitals, which was told before us, has looked at it. */
export async function measured(tab) {
  await observed(tab, 'first-input');
  await tab.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
}
