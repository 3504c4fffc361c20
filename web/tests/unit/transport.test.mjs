import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { freshPackage, openPage, points, settled } from './page.mjs';

let relay;
beforeEach(async () => {
  relay = await freshPackage();
});

/** Time stands still until the test lets it go on; chance gives the least. */
function stopTime(t) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_795_000_000_000 });
  t.mock.method(Math, 'random', () => 0);
}

/** Lets so many seconds pass, each with all that happens in it. */
async function pass(t, seconds) {
  for (let n = 0; n < seconds; n++) {
    t.mock.timers.tick(1_000);
    await settled();
  }
}

const unreachable = () => Promise.reject(new TypeError('Failed to fetch'));

test('measurements go to the endpoint with the path of the signal, without cookies, referrer or any other header', async (t) => {
  const page = openPage(t);
  relay.init({ endpoint: 'https://collector.example:4318/' });
  relay.recordButtonClick('save');
  await relay.flush();
  await relay.shutdown();

  const [{ url, method, headers, credentials, referrerPolicy, redirect, keepalive }] = page.requests;
  assert.deepEqual(
    { url, method, headers, credentials, referrerPolicy, redirect, keepalive },
    {
      url: 'https://collector.example:4318/v1/metrics',
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      credentials: 'omit',
      referrerPolicy: 'no-referrer',
      redirect: 'error',
      keepalive: true,
    },
  );
});

for (const [endpoint, url] of [
  [undefined, 'https://relay.example/otel/v1/metrics'],
  ['', 'https://relay.example/otel/v1/metrics'],
  ['/otel/', 'https://relay.example/otel/v1/metrics'],
  ['/otel/v1/metrics', 'https://relay.example/otel/v1/metrics'],
  ['http://127.0.0.1:4318', 'http://127.0.0.1:4318/v1/metrics'],
]) {
  test(`endpoint ${endpoint === undefined ? 'by default' : `'${endpoint}'`} is ${url}`, async (t) => {
    const page = openPage(t, { path: '/item/42' });
    relay.init({ endpoint });
    relay.recordButtonClick('save');
    await relay.shutdown();

    assert.deepEqual([page.requests.map((each) => each.url), page.warned], [[url], []]);
  });
}

test('what is there is sent each interval, and where nothing is there nothing is sent', async (t) => {
  stopTime(t);
  const page = openPage(t);
  relay.init();
  await pass(t, 60);
  relay.recordButtonClick('save');
  await pass(t, 9);
  const early = page.requests.length;
  await pass(t, 1);
  const due = page.requests.length;
  await pass(t, 60);
  await relay.shutdown();

  assert.deepEqual([early, due, page.requests.length], [0, 1, 1]);
});

test('what was recorded before init is sent', async (t) => {
  stopTime(t);
  const page = openPage(t);
  relay.recordButtonClick('early');
  relay.init();
  await pass(t, 10);
  await relay.shutdown();

  assert.deepEqual(page.counts(), { 'click_event_total{early, /}': 1 });
});

for (const status of [429, 502, 503, 504]) {
  test(`${status}, then 200: every measurement arrives once`, async (t) => {
    stopTime(t);
    const page = openPage(t, { answers: [status, status, 200] });
    relay.init();
    relay.recordButtonClick('save');
    relay.recordPageLoad('/', 500);
    await pass(t, 10);
    relay.recordButtonClick('save');
    await pass(t, 100);
    await relay.shutdown();

    assert.deepEqual(
      [page.counts(), page.requests.map(({ answer }) => answer)],
      [{ 'click_event_total{save, /}': 2, 'web_page_load_time_seconds{/, desktop}': 1 }, [status, status, 200]],
    );
  });
}

test('a network that fails is said once, and everything arrives when it is back', async (t) => {
  stopTime(t);
  const page = openPage(t, { answers: [unreachable, unreachable, 200] });
  relay.init();
  relay.recordButtonClick('save');
  await pass(t, 100);
  await relay.shutdown();

  assert.deepEqual(
    [page.counts(), page.warned],
    [
      { 'click_event_total{save, /}': 1 },
      [
        'relay-otel: https://relay.example/otel/v1/metrics cannot be reached: is it right, and does connect-src allow it? Measurements wait.',
      ],
    ],
  );
});

test('Retry-After is waited for, whatever is recorded meanwhile', async (t) => {
  stopTime(t);
  const page = openPage(t, { answers: [[429, { 'retry-after': '120' }], 200] });
  relay.init();
  relay.recordButtonClick('save');
  await pass(t, 10);
  for (let second = 0; second < 119; second++) {
    relay.recordButtonClick(`button ${second % 50}`); // more than a body holds
    await pass(t, 1);
  }
  const before = page.requests.length;
  await pass(t, 11); // at most an interval late
  await relay.shutdown();

  const total = Object.values(page.counts()).reduce((sum, count) => sum + count, 0);
  assert.deepEqual([before, total], [1, 120]);
});

test('a server that is down is asked less and less often, and no less than every 5 minutes', async (t) => {
  stopTime(t);
  const page = openPage(t, { answers: [503] });
  relay.init();
  relay.recordButtonClick('save');
  await pass(t, 1_600);
  relay.shutdown();

  const at = page.requests.slice(0, 8).map((each) => each.at);
  assert.deepEqual(
    at.slice(1).map((time, i) => (time - at[i]) / 1_000),
    [20, 40, 80, 160, 300, 300, 300],
  );
});

test('chance keeps a thousand pages from coming back together', async (t) => {
  stopTime(t);
  Math.random.mock.mockImplementation(() => 0.999);
  const page = openPage(t, { answers: [503] });
  relay.init({ sampleRate: 1 });
  relay.recordButtonClick('save');
  await pass(t, 45);
  relay.shutdown();

  const [first, second] = page.requests.map(({ at }) => at);
  assert.equal(Math.round((second - first) / 1_000), 30);
});

test('a refusal is said once, its measurements are counted as `rejected`, and it is asked less and less often', async (t) => {
  stopTime(t);
  const page = openPage(t, { answers: [404] });
  relay.init();
  for (let n = 0; n < 5; n++) relay.recordButtonClick('save');
  await pass(t, 1_000);
  page.answers = [200];
  await pass(t, 310);
  await relay.shutdown();

  const refused = page.requests.filter(({ answer }) => answer === 404).map(({ at }) => at);
  assert.deepEqual(
    [page.counts(), page.warned, refused.slice(1).map((at, i) => (at - refused[i]) / 1_000)],
    [
      { 'relay_web_dropped_total{rejected}': 5 },
      [
        "relay-otel: https://relay.example/otel/v1/metrics answered 404: is it the collector's browser receiver? Measurements are given up.",
      ],
      [20, 40, 80, 160, 300, 300],
    ],
  );
});

test('more than 45 series are sent at once, in bodies of at most 64 kB', async (t) => {
  const page = openPage(t);
  relay.init();
  for (let n = 0; n < 100; n++) relay.recordButtonClick(`button ${n}`);
  const early = page.requests.length; // the 45th did not wait for an interval
  await relay.flush();
  await relay.shutdown();

  const sizes = page.requests.map(({ body }) => JSON.stringify(body).length);
  assert.deepEqual([early, Object.keys(page.counts()).length, sizes.every((size) => size < 65_536)], [1, 100, true]);
});

test('keepalive is for 60 kB under way; beyond that a page that stays waits, and one that is left sends all the same', async (t) => {
  stopTime(t);
  const answers = [];
  const page = openPage(t, { answers: [() => new Promise((resolve) => answers.push(resolve))] });
  relay.init();
  const long = (n) => `${n}`.padEnd(64, 'x');
  const record = (from) => {
    for (let n = from; n < from + 200; n++) relay.recordAPIError(long(n), long(n % 40), 500);
  };
  record(0);
  await pass(t, 60);
  const waiting = page.requests.map(({ keepalive }) => keepalive);
  page.hide();
  const left = page.requests.map(({ keepalive }) => keepalive).slice(waiting.length);
  for (const answer of answers) answer(new Response());
  await relay.shutdown();

  const sizes = page.requests.filter(({ keepalive }) => keepalive).map(({ body }) => JSON.stringify(body).length);
  const counts = Object.values(page.counts(page.requests));
  assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= 60_000, `${sizes}`);
  assert.ok(waiting.every(Boolean));
  assert.ok(left.length > 0 && !left.some(Boolean), `${left}`);
  assert.equal(
    counts.reduce((sum, count) => sum + count, 0),
    200,
  );
});

test('offline nothing is asked for; when the browser is online again, everything goes out at once', async (t) => {
  stopTime(t);
  const page = openPage(t);
  relay.init();
  page.navigator.onLine = false;
  relay.recordButtonClick('save');
  await pass(t, 300);
  const offline = page.requests.length;
  page.navigator.onLine = true;
  page.happens('online');
  await relay.shutdown();

  assert.deepEqual([offline, page.counts()], [0, { 'click_event_total{save, /}': 1 }]);
});

test('the request begins while the event of leaving is handled: what begins later is lost with the page', async (t) => {
  for (const leave of [(page) => page.hide(), (page) => page.happens('pagehide')]) {
    const page = openPage(t);
    const own = await freshPackage();
    own.init();
    own.recordButtonClick('save');
    leave(page);

    assert.equal(page.requests.length, 1);
    await own.shutdown();
  }
});

test('shutdown sends what is there, and nothing is measured or sent afterwards', async (t) => {
  stopTime(t);
  const page = openPage(t);
  relay.init();
  relay.recordButtonClick('save');
  await relay.shutdown();
  relay.recordButtonClick('save');
  page.hide();
  page.happens('pagehide');
  page.happens('online');
  await pass(t, 60);

  assert.deepEqual([page.counts(), page.requests.length], [{ 'click_event_total{save, /}': 1 }, 1]);
});

test('what the last request of a shutdown could not deliver waits for the next init, and goes where that says', async (t) => {
  stopTime(t);
  const page = openPage(t, { answers: [503, 200] });
  relay.init({ endpoint: '/old' });
  relay.recordButtonClick('save');
  await relay.shutdown();
  await pass(t, 600);
  const meanwhile = page.requests.length;
  relay.init({ endpoint: '/new' });
  relay.recordButtonClick('save');
  await pass(t, 60);
  await relay.shutdown();

  assert.deepEqual(
    [meanwhile, page.requests.slice(1).map(({ url }) => url), page.counts()],
    [1, ['https://relay.example/new/v1/metrics'], { 'click_event_total{save, /}': 2 }],
  );
});

test('a second init changes nothing', async (t) => {
  const page = openPage(t);
  const first = relay.init({ endpoint: '/first' });
  const second = relay.init({ endpoint: '/second', sampleRate: 0 });
  relay.recordButtonClick('save');
  await second.shutdown();

  assert.equal(first, second);
  assert.deepEqual(
    page.requests.map(({ url }) => url),
    ['https://relay.example/first/v1/metrics'],
  );
});

test('while consent is not given nothing is sent; what was measured goes out once it is', async (t) => {
  stopTime(t);
  const page = openPage(t);
  let agreed = false;
  relay.init({ consent: () => agreed });
  for (let n = 0; n < 60; n++) relay.recordButtonClick(`button ${n}`);
  await pass(t, 60);
  page.hide();
  page.happens('pagehide');
  await relay.flush();
  const without = page.requests.length;
  agreed = true;
  relay.recordButtonClick('agreed');
  await pass(t, 60);
  await relay.shutdown();

  assert.deepEqual([without, Object.keys(page.counts()).length], [0, 61]);
});

test('sampleRate is the share of page views that are measured: none or all of each', async (t) => {
  const page = openPage(t);
  const dice = [0.05, 0.15, 0.95];
  t.mock.method(Math, 'random', () => dice.shift() ?? 0);
  for (const view of ['first', 'second', 'third']) {
    const own = await freshPackage();
    own.init({ sampleRate: 0.1 });
    own.recordButtonClick(view);
    own.recordButtonClick(view);
    await own.shutdown();
  }

  assert.deepEqual(page.counts(), { 'click_event_total{first, /}': 2 });
});

for (const agent of [
  'Googlebot/2.1',
  'Mozilla/5.0 HeadlessChrome/156',
  'Chrome-Lighthouse',
  'Baiduspider',
  'a crawler',
]) {
  test(`${agent} is a bot: not measured unless bots are allowed`, async (t) => {
    const page = openPage(t, { agent });
    relay.init();
    relay.recordButtonClick('save');
    await relay.shutdown();
    const allowed = await freshPackage();
    allowed.init({ allowBots: true });
    allowed.recordButtonClick('save');
    await allowed.shutdown();

    assert.deepEqual(page.counts(page.requests), { 'click_event_total{save, /}': 1 });
  });
}

for (const [device, agent, touch, mobile] of [
  ['desktop', 'Mozilla/5.0 (X11; Linux x86_64) Firefox/150', 0],
  ['desktop', 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Safari/605', 0],
  ['tablet', 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Safari/605', 5],
  ['tablet', 'Mozilla/5.0 (iPad; CPU OS 12_0) Safari/605', 5],
  ['tablet', 'Mozilla/5.0 (Linux; Android 14; SM-X710) Chrome/156 Safari/537', 5],
  ['mobile', 'Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/156 Mobile Safari/537', 5],
  ['mobile', 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148', 5],
  ['mobile', 'Something', 5, true],
]) {
  test(`${agent}${touch ? ' with a touch screen' : ''} is a ${device}`, async (t) => {
    const page = openPage(t, { agent });
    Object.assign(page.navigator, { maxTouchPoints: touch, userAgentData: mobile && { mobile } });
    relay.init();
    relay.recordPageLoad('/', 500);
    await relay.shutdown();

    assert.deepEqual(
      page.requests.flatMap(({ body }) => points(body)).map(({ values }) => values),
      [['/', device]],
    );
  });
}
