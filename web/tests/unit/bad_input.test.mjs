import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';

import { freshPackage, openPage, settled } from './page.mjs';

// A promise that nobody catches fails the test that it belongs to: node:test does that.

let relay;
beforeEach(async () => {
  relay = await freshPackage();
});

const hostile = () => {
  throw new Error('not today');
};

describe('an option that cannot be is said once, with its repair', () => {
  const rows = [
    [{ endpoint: 'http://' }, "endpoint is 'http://'; give a path, or an http URL. Nothing is measured."],
    [{ endpoint: 'file:///etc' }, "endpoint is 'file:///etc'; give a path, or an http URL. Nothing is measured."],
    [{ endpoint: 'javascript:0' }, "endpoint is 'javascript:0'; give a path, or an http URL. Nothing is measured."],
    [{ flushIntervalMs: 5 }, 'flushIntervalMs is 5; give 100 to 3600000. 10000 is used.'],
    [{ flushIntervalMs: Number.NaN }, 'flushIntervalMs is NaN; give 100 to 3600000. 10000 is used.'],
    [{ flushIntervalMs: 1e12 }, 'flushIntervalMs is 1000000000000; give 100 to 3600000. 10000 is used.'],
    [{ sampleRate: 50 }, 'sampleRate is 50; give 0 to 1. 1 is used.'],
    [{ sampleRate: -1 }, 'sampleRate is -1; give 0 to 1. 1 is used.'],
    [{ sampleRate: 'all' }, 'sampleRate is all; give 0 to 1. 1 is used.'],
  ];
  for (const [options, sentence] of rows) {
    test(sentence, async (t) => {
      const page = openPage(t);
      relay.init(options);
      relay.init(options);
      relay.recordButtonClick('save');
      await relay.shutdown();
      relay.init(options);
      await relay.shutdown();

      const sent = options.endpoint ? {} : { 'click_event_total{save, /}': 1 };
      assert.deepEqual([page.warned, page.counts()], [[`relay-otel: ${sentence}`], sent]);
    });
  }
});

test('onError is told instead of the console', async (t) => {
  const page = openPage(t);
  const told = [];
  relay.init({ sampleRate: 2, onError: (sentence) => told.push(sentence) });
  await relay.shutdown();

  assert.deepEqual([told, page.warned], [['sampleRate is 2; give 0 to 1. 1 is used.'], []]);
});

for (const [answer, arrives] of [
  [404, { 'relay_web_dropped_total{rejected}': 1 }],
  [() => Promise.reject(new TypeError('Failed to fetch')), { 'click_event_total{save, /}': 1 }],
]) {
  test(`an onError that throws costs nothing where the collector ${answer === 404 ? 'refuses' : 'cannot be reached'}`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
    const page = openPage(t, { answers: [answer, 200] });
    relay.init({ sampleRate: 2, onError: hostile });
    relay.recordButtonClick('save');
    await relay.flush();
    await relay.flush();
    await relay.shutdown();

    assert.deepEqual(page.counts(), arrives);
  });
}

test('a consent that throws is none: nothing is sent or kept, and it is said once', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const page = openPage(t);
  relay.init({ consent: hostile });
  relay.captureSession();
  for (let n = 0; n < 100; n++) relay.recordButtonClick(`button ${n}`);
  page.hide();
  await relay.shutdown();

  assert.deepEqual([page.requests, page.warned], [[], ['relay-otel: Error: not today']]);
});

test('a consent that is no function is none', async (t) => {
  const page = openPage(t);
  relay.init({ consent: true });
  relay.recordButtonClick('save');
  await relay.shutdown();

  assert.deepEqual([page.requests, page.warned.length], [[], 1]);
});

const NO_NUMBERS = [undefined, Number.NaN, Number.POSITIVE_INFINITY, -1, 1e18, {}, Symbol('now'), () => 1];

test('a time that cannot be is counted as `invalid`, or as `error`, and said once for each metric', async (t) => {
  const page = openPage(t);
  relay.init();
  for (const value of NO_NUMBERS) {
    relay.recordPageLoad('/', value);
    relay.recordSessionDuration(value);
  }
  relay.recordSessionDuration('30');
  relay.recordSessionDuration(30n);
  await relay.shutdown();

  const {
    'relay_web_dropped_total{invalid}': invalid,
    'relay_web_dropped_total{error}': error,
    ...other
  } = page.counts();
  assert.deepEqual([invalid + error, other], [2 * NO_NUMBERS.length + 2, {}]);
  assert.deepEqual(page.warned, [
    'relay-otel: web_page_load_time_seconds was given what it cannot be.',
    'relay-otel: session_duration_seconds was given what it cannot be.',
    'relay-otel: TypeError: Cannot convert a Symbol value to a number',
  ]);
});

test('a name that is no text is counted as what it says, as `other`, or as `error`', async (t) => {
  const page = openPage(t);
  relay.init();
  const unspeakable = { toString: hostile };
  for (const name of [undefined, null, 7, '<b>', 'x'.repeat(65), unspeakable]) relay.recordButtonClick(name);
  relay.recordFormSubmission('login', 'perhaps');
  relay.recordAPIError(undefined, 'network');
  relay.recordAPIError('/api', 'network', 'none');
  relay.setUserType('ann@example.org');
  relay.recordSessionDuration(30);
  relay.setPageName(unspeakable);
  relay.recordButtonClick('save');
  await relay.shutdown();

  assert.deepEqual(page.counts(), {
    'click_event_total{undefined, /}': 1,
    'click_event_total{null, /}': 1,
    'click_event_total{7, /}': 1,
    'click_event_total{other, /}': 2,
    'relay_web_dropped_total{error}': 3,
    'form_submission_total{login, other}': 1,
    'api_call_errors_client_total{/api, network, other}': 1,
    'session_duration_seconds{other}': 1,
  });
  assert.equal(page.warned.length, 2);
});

test('init takes nothing, and anything', async (t) => {
  openPage(t);
  for (const options of [
    undefined,
    null,
    7,
    'x',
    [],
    { routes: 7 },
    { routes: [undefined] },
    { onError: 7, sampleRate: 7 },
  ]) {
    const own = await freshPackage();
    const handle = own.init(options);
    own.recordButtonClick('save');
    await handle.flush();
    await handle.shutdown();
  }
});

for (const [what, fetch] of [
  ['throws', hostile],
  ['gives nothing', () => undefined],
  ['gives a promise of nothing', () => Promise.resolve()],
  ['gives what is no answer', () => Promise.resolve({ ok: false, status: 503 })],
]) {
  test(`a page whose fetch ${what} is not disturbed: measurements wait`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
    const page = openPage(t, { answers: [fetch, 200] });
    relay.init();
    relay.captureErrors();
    relay.recordButtonClick('save');
    await relay.flush();
    await settled();
    await relay.flush();
    await relay.shutdown();

    assert.deepEqual(page.counts(), { 'click_event_total{save, /}': 1 });
  });

  test(`fetch capture gives the page what a fetch that ${what} gives`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
    openPage(t);
    const own = t.mock.method(globalThis, 'fetch', fetch).mock;
    relay.init();
    relay.captureErrors();
    let outcome;
    try {
      outcome = globalThis.fetch('/api');
    } catch (error) {
      outcome = error;
    }

    assert.equal(outcome, own.calls[0].error ?? own.calls[0].result);
    await settled();
    await relay.shutdown();
  });
}

test('fetch without arguments fails as it always does', async (t) => {
  const page = openPage(t);
  relay.init();
  globalThis.fetch = () => Promise.reject(new TypeError('1 argument required'));
  relay.captureErrors();

  await assert.rejects(globalThis.fetch(), { message: '1 argument required' });
  await relay.shutdown();
  assert.deepEqual(page.warned, []);
});
