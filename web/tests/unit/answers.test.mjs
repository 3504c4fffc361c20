import assert from 'node:assert/strict';
import { test } from 'node:test';

import { freshPackage, openPage, settled } from './page.mjs';

/** A page on which time stands still until `pass` lets it go on, and chance adds a quarter to each wait. */
async function begin(t, ...answers) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_795_000_000_000 });
  t.mock.method(Math, 'random', () => 0.5);
  const page = openPage(t, { path: '/chat', answers: [...answers, 200] });
  const relay = await freshPackage();
  relay.init();

  async function pass(seconds) {
    for (let n = 0; n < seconds; n++) {
      t.mock.timers.tick(1_000);
      await settled();
    }
  }

  /** Seconds between requests, until there were so many. */
  async function waits(requests) {
    for (let n = 0; page.requests.length < requests && n < 5_000; n++) await pass(1);
    return page.requests.slice(1).map(({ at }, i) => (at - page.requests[i].at) / 1_000);
  }
  return { page, relay, pass, waits, last: () => page.counts(page.requests.slice(-1)) };
}

const CLICK = { 'click_event_total{send, /chat}': 1 };

for (const [said, seconds] of [
  ['42', 42],
  ['86400', 300],
  ['Fri, 01 Jan 2027 00:00:00 GMT', 25],
  ['0', 25],
  ['-5', 25],
  ['soon', 25],
]) {
  test(`a server that says "Retry-After: ${said}" is asked again after ${seconds} s`, async (t) => {
    const { relay, waits, last } = await begin(t, [503, { 'retry-after': said }]);
    relay.recordButtonClick('send');

    assert.deepEqual([await waits(2), last()], [[seconds], CLICK]);
  });
}

test('a server that takes measurements again is asked each interval again', async (t) => {
  const { page, relay, waits } = await begin(t, 503, 503, 200, 503);
  relay.recordButtonClick('send');
  await waits(3);
  page.requests.splice(0);
  relay.recordButtonClick('send');

  assert.deepEqual(await waits(2), [25]);
});

for (const status of [400, 401, 403, 413, 500]) {
  test(`${status} is a refusal: what it was given is not sent again, and counted as \`rejected\``, async (t) => {
    const { page, relay, pass, last } = await begin(t, status);
    relay.recordButtonClick('send');
    relay.recordButtonClick('send');
    await pass(1_000);

    assert.deepEqual(
      [page.requests.length, last(), page.warned.length],
      [2, { 'relay_web_dropped_total{rejected}': 2 }, 1],
    );
  });
}

test('a page that is left sends what waits, whatever the server has asked for', async (t) => {
  const { page, relay, pass, last } = await begin(t, [503, { 'retry-after': '120' }]);
  relay.recordButtonClick('send');
  await pass(10);

  page.hide();

  assert.deepEqual([page.requests.length, last()], [2, CLICK]);
});

test('a page that is shown again sends nothing', async (t) => {
  const { page, relay } = await begin(t);
  relay.recordButtonClick('send');
  page.happens('visibilitychange', page.document);

  assert.deepEqual(page.requests, []);
});

test('being online again ends a wait', async (t) => {
  const { page, relay, pass, last } = await begin(t, () => Promise.reject(new TypeError('Failed to fetch')));
  relay.recordButtonClick('send');
  await pass(10);

  page.happens('online');

  assert.deepEqual([page.requests.length, last()], [2, CLICK]);
});

test('flush ends when it was answered', async (t) => {
  let answer;
  const { page, relay } = await begin(
    t,
    () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
  );
  relay.recordButtonClick('send');
  let ended = false;
  const flushed = relay.flush().then(() => {
    ended = true;
  });
  await settled();
  assert.deepEqual([page.requests.length, ended], [1, false]);

  answer(new Response());
  await flushed;
});

test('keepalive counts bytes, not letters', async (t) => {
  const { page, relay } = await begin(t, () => new Promise(() => {}));
  const wide = '\u{20000}'.repeat(58);
  page.answers.pop(); // no answer comes
  relay.setPageName(wide);
  for (let n = 0; n < 180; n++) relay.recordButtonClick(`${wide}${n}`);
  page.hide();

  const bytes = ({ body }) => Buffer.byteLength(JSON.stringify(body));
  const kept = page.requests.filter(({ keepalive }) => keepalive).reduce((sum, each) => sum + bytes(each), 0);
  const rest = page.requests.filter(({ keepalive }) => !keepalive);
  assert.ok(kept <= 60_000, `${kept} bytes`);
  assert.ok(rest.length > 0 && rest.every((each) => kept + bytes(each) > 60_000));
});

for (const [what, consent] of [
  ['nothing', () => {}],
  ['a promise, as an async function does,', async () => false],
]) {
  test(`a consent that says ${what} is none`, async (t) => {
    const page = openPage(t);
    const relay = await freshPackage();
    relay.init({ consent });
    relay.recordButtonClick('send');
    await relay.shutdown();

    assert.deepEqual(page.requests, []);
  });
}
