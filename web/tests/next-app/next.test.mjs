import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { all, Collector, click, launch, observed } from '../browser/harness.mjs';
import { bin, install, run } from '../packed.mjs';

const APP = fileURLToPath(new URL('.', import.meta.url));
const NEXT = bin('next');

/** What one view of a page with one click is, once it is left. */
const view = (name) => ({
  [`cumulative_layout_shift{${name}}`]: 1,
  [`first_contentful_paint_seconds{${name}}`]: 1,
  [`first_input_delay_seconds{${name}}`]: 1,
  [`interaction_to_next_paint_seconds{${name}}`]: 1,
  [`largest_contentful_paint_seconds{${name}}`]: 1,
  'session_duration_seconds{anonymous}': 1,
  [`time_to_first_byte_seconds{${name}}`]: 1,
  [`web_page_load_time_seconds{${name}, desktop}`]: 1,
});

/** What parts/Marks.tsx counts of a page that is shown so often, with so many clicks on "Buy". */
const marks = (name, shown = 1, bought = 0) => ({
  [`click_event_total{arrived, ${name}}`]: shown,
  ...(bought && { [`click_event_total{buy, ${name}}`]: bought }),
});

describe('an app of Next.js', { concurrency: 3, timeout: 300_000 }, () => {
  /** Each test visits an origin of its own, whose beacons come to a collector of its own. */
  const collectors = new Map();
  const receiver = createServer((request, response) => {
    const { hostname } = new URL(request.headers.origin ?? 'http://nobody');
    return collectors.get(hostname)?.answer(request, response) ?? response.writeHead(404).end();
  });
  let chromium;
  let port;
  let server;
  let exited;
  let said = '';

  before(async () => {
    receiver.listen(0, '127.0.0.1');
    await Promise.all([once(receiver, 'listening'), install(APP)]);
    const env = {
      ...process.env,
      NEXT_TELEMETRY_DISABLED: '1',
      NODE_ENV: 'production',
      COLLECTOR: `http://127.0.0.1:${receiver.address().port}`,
    };
    await rm(join(APP, '.next'), { recursive: true, force: true });
    await run(NEXT, ['build'], { cwd: APP, env });
    server = spawn(process.execPath, [NEXT, 'start', '--hostname', '127.0.0.1', '--port', '0'], { cwd: APP, env });
    exited = once(server, 'exit');
    server.stderr.on('data', (text) => (said += text));
    for await (const line of createInterface(server.stdout)) {
      port ??= line.match(/http:\/\/127\.0\.0\.1:(\d+)/)?.[1];
      if (line.includes('Ready')) break;
    }
    server.stdout.resume();
    assert.ok(port, `next start did not begin: ${said}`);
    chromium = await launch();
  });

  after(async () => {
    await chromium?.close();
    server?.kill();
    await exited;
    receiver.closeAllConnections();
    receiver.close();
  });

  let sites = 0;
  function site() {
    const hostname = `site-${++sites}.localhost`;
    const collector = new Collector();
    collectors.set(hostname, collector);
    return { origin: `http://${hostname}:${port}`, collector };
  }

  /** Resolves once a page has run its effects, for the nth time in this document. */
  const arrived = (tab, times) => tab.waitForFunction((times) => globalThis.arrived?.length === times, times);

  async function open(url) {
    const tab = await chromium.visit(url);
    await arrived(tab, 1);
    await tab.waitForFunction(() => performance.getEntriesByType('navigation')[0].loadEventEnd > 0);
    await observed(tab, 'largest-contentful-paint');
    return tab;
  }

  /** A page that is left is still there, hidden. */
  const press = (tab, text) => tab.click(`button:visible:has-text("${text}")`);
  const buy = (tab) => click(tab, 'button:visible:has-text("Buy")');
  const follow = (tab, path) => tab.click(`a:visible:text-is("${path}")`);

  /** Leave, and wait until all of the page's series have arrived. */
  async function leave(tab, collector, expected) {
    await tab.goto('about:blank');
    await collector.until(all(expected));
    await tab.context().close();
  }

  const LANDINGS = {
    '/': '/',
    '/item/42': '/item/[id]',
    '/item/blue%20kettle%3F': '/item/[id]',
    '/docs/guide/start/install': '/docs/[section]/[...path]',
    '/compare/red/red': '/compare/[left]/[right]',
    '/users/users': '/users/users', // which of the two is the parameter, Next.js does not say
    '/checkout': 'paying',
    '/legacy/first': '/legacy/[slug]',
  };

  for (const [path, name] of Object.entries(LANDINGS)) {
    test(`a visit that begins at ${path} is one of ${name}, in all that is measured`, async () => {
      const { origin, collector } = site();
      const expected = { ...view(name), ...marks(name, 1, 1) };
      const tab = await open(origin + path);
      await buy(tab);

      await leave(tab, collector, expected);

      assert.deepEqual(collector.counts(), expected);
    });
  }

  test('links, the router and the back button change the name of what is recorded, and never that of the landing', async () => {
    const { origin, collector } = site();
    const expected = {
      ...view('/item/[id]'),
      ...marks('/item/[id]', 4, 2),
      ...marks('/docs/[section]/[...path]', 2, 2),
      ...marks('/cart', 2, 1),
      ...marks('/order/[order]', 1, 1),
    };
    const tab = await open(`${origin}/item/kettle`);
    await buy(tab);

    await follow(tab, '/docs/guide/start/install');
    await arrived(tab, 2);
    await press(tab, 'Buy');
    await press(tab, 'Go to the cart');
    await arrived(tab, 3);
    await press(tab, 'Buy');
    await tab.goBack();
    await arrived(tab, 4);
    await press(tab, 'Buy');
    await tab.goBack();
    await arrived(tab, 5);
    await press(tab, 'Buy');
    await follow(tab, '/item/teapot');
    await arrived(tab, 6);
    await tab.goBack();
    await arrived(tab, 7);
    await follow(tab, '/order/blue%20one');
    await arrived(tab, 8);
    await press(tab, 'Buy');
    await press(tab, 'Go to the cart');
    await arrived(tab, 9);
    await leave(tab, collector, expected);

    assert.deepEqual(collector.counts(), expected);
  });

  test('a page that names itself has that name whenever it is shown, and no other page has it', async () => {
    const { origin, collector } = site();
    const expected = { ...view('paying'), ...marks('paying', 2, 2), ...marks('/cart', 2, 2) };
    const tab = await open(`${origin}/checkout`);
    await buy(tab);

    await follow(tab, '/cart');
    await arrived(tab, 2);
    await press(tab, 'Buy');
    await tab.goBack();
    await arrived(tab, 3);
    await press(tab, 'Buy');
    await tab.goForward();
    await arrived(tab, 4);
    await press(tab, 'Buy');
    await leave(tab, collector, expected);

    assert.deepEqual(collector.counts(), expected);
  });

  test('the Pages Router changes names too, and leaving it for the App Router is a visit of its own', async () => {
    const { origin, collector } = site();
    const expected = {
      ...marks('/legacy/[slug]', 1, 1),
      ...marks('/cart', 1, 1),
      ...view('/legacy/[slug]'),
      ...view('/cart'),
      'session_duration_seconds{anonymous}': 2,
    };
    const tab = await open(`${origin}/legacy/first`);
    await follow(tab, '/legacy/second');
    await tab.waitForSelector('h1:text-is("second")');
    await buy(tab);

    await press(tab, 'Go to the cart');
    await tab.waitForFunction(() => location.pathname === '/cart');
    await arrived(tab, 1);
    await buy(tab);
    await leave(tab, collector, expected);

    assert.deepEqual(collector.counts(), expected);
  });

  test('pages that cannot be fetched ahead are no API errors, and a call that fails is one', async () => {
    const { origin, collector } = site();
    const error = 'api_call_errors_client_total{/api/item/[id], http_5xx, 503}';
    const tab = await chromium.visit();
    let ahead = 0;
    await tab.route(/_rsc=/, (route) => route.fulfill({ status: 500, body: `${ahead++}` }));
    await tab.goto(`${origin}/item/kettle`);
    await arrived(tab, 1);

    await Promise.all([tab.waitForResponse(/api/), press(tab, 'Ask in vain')]);
    await leave(tab, collector, { [error]: 1 });

    const errors = Object.entries(collector.counts()).filter(([name]) => name.startsWith('api_call_errors'));
    assert.deepEqual([Object.fromEntries(errors), ahead > 0], [{ [error]: 1 }, true]);
  });

  test('a rewrite carries the beacons, unchanged and without cookies', async () => {
    const { origin, collector } = site();
    const tab = await open(`${origin}/item/kettle`);
    await tab.context().addCookies([{ name: 'session', value: 'secret', url: origin }]);
    const [request] = await Promise.all([tab.waitForRequest(`${origin}/otel/v1/metrics`), press(tab, 'Send')]);
    await collector.until((counts) => counts['click_event_total{arrived, /item/[id]}']);

    const [{ text, headers, url }] = collector.posts;
    assert.deepEqual(
      [text, url, headers['content-type'], headers.cookie],
      [request.postData(), '/v1/metrics', 'application/json', undefined],
    );
    await tab.context().close();
  });

  test('the server renders pages as before, with a layout that stays on the server', async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/item/kettle`);

    assert.deepEqual([answer.status, (await answer.text()).includes('<h1>kettle</h1>'), said], [200, true, '']);
  });
});
