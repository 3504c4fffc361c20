import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { all, Collector, launch, page, serve } from './harness.mjs';

const FAST = 'relay.init({ allowBots: true, flushIntervalMs: 100, onError: (sentence) => said.push(sentence) });';
const CLICK = 'click_event_total{save, /}';

describe('sending', { timeout: 120_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  /** A visit to `/`, and what it is asked to do. */
  async function visit(t, collector, script = FAST, more = {}) {
    const site = await serve({ '/': page(script), '/away': page(), ...more }, collector);
    const tab = await chromium.visit(site.origin);
    await tab.waitForFunction(() => window.ready);
    t.after(async () => {
      await tab.context().close();
      site.close();
    });
    const click = () => tab.evaluate(() => relay.recordButtonClick('save'));
    const troubles = () => tab.evaluate(() => ({ said, thrown }));
    return { tab, site, click, troubles };
  }

  for (const trouble of [503, 'reset']) {
    test(`${trouble}, then 200: every measurement arrives once, without a word`, async (t) => {
      const collector = new Collector({ answers: [trouble, 200] });
      const { tab, click, troubles } = await visit(t, collector);
      for (let n = 0; n < 3; n++) await click();
      await tab.evaluate(() => relay.recordPageLoad('/', 500));
      await collector.until(all({ [CLICK]: 3, 'web_page_load_time_seconds{/, desktop}': 1 }));
      const { said, thrown } = await troubles();

      assert.deepEqual(
        [collector.series(), said.length, thrown],
        [
          { [CLICK]: { count: 3, sum: 3 }, 'web_page_load_time_seconds{/, desktop}': { count: 1, sum: 0.5 } },
          trouble === 503 ? 0 : 1,
          [],
        ],
      );
    });
  }

  test('429 with Retry-After: the page that stays asks no more, and the page that is left sends what waited', async (t) => {
    const collector = new Collector({ answers: [429, 200], headers: { 'retry-after': '300' } });
    const { tab, site, click } = await visit(t, collector);
    await click();
    await collector.until((_, { posts }) => posts.length === 1);
    for (let n = 0; n < 60; n++) {
      await tab.evaluate((n) => relay.recordButtonClick(`button ${n}`), n); // more than a body holds
    }
    await tab.evaluate(() => new Promise((resolve) => setTimeout(resolve, 500))); // five intervals
    const asked = collector.posts.length;
    await tab.goto(`${site.origin}/away`);
    await collector.until((counts) => Object.keys(counts).length === 61);

    assert.deepEqual([asked, collector.counts()[CLICK]], [1, 1]);
  });

  test('a refusal is said once and counted, and the page is not disturbed', async (t) => {
    const collector = new Collector({ answers: [400, 400, 200] });
    const { click, troubles } = await visit(t, collector);
    await click();
    await collector.until((_, { posts }) => posts.length === 1);
    await click();
    await collector.until((counts) => counts['relay_web_dropped_total{rejected}'] === 2);

    assert.deepEqual(
      [collector.counts(), (await troubles()).said.map((each) => each.replace(/\S+ /, '')), (await troubles()).thrown],
      [
        { 'relay_web_dropped_total{rejected}': 2 },
        ["answered 400: is it the collector's browser receiver? Measurements are given up."],
        [],
      ],
    );
  });

  test('more than 60 kB are several bodies of at most 64 kB, and all of it arrives', async (t) => {
    const collector = new Collector();
    const { tab } = await visit(t, collector);
    await tab.evaluate(async () => {
      for (let n = 0; n < 290; n++) relay.recordAPIError(`${n}`.padEnd(64, 'x'), `${n % 40}`.padEnd(64, 'y'), 500);
      await relay.flush();
    });

    const sizes = collector.posts.map(({ text }) => Buffer.byteLength(text));
    assert.deepEqual(
      [
        sizes.every((size) => size <= 65_536),
        sizes.reduce((sum, size) => sum + size) > 60_000,
        Object.keys(collector.counts()).length,
      ],
      [true, true, 290],
    );
  });

  test('offline nothing is asked for; everything arrives when the browser is online again', async (t) => {
    const collector = new Collector();
    const { tab, click } = await visit(t, collector);
    await tab.context().setOffline(true);
    await tab.waitForFunction(() => navigator.onLine === false);
    await click();
    await tab.evaluate(() => new Promise((resolve) => setTimeout(resolve, 500))); // five intervals
    await click();
    const offline = collector.posts.length;
    await tab.context().setOffline(false);
    await collector.until((counts) => counts[CLICK] === 2);

    assert.deepEqual([offline, collector.counts()], [0, { [CLICK]: 2 }]);
  });

  test('a collector that never answers holds up neither the page nor what is measured later', async (t) => {
    const collector = new Collector({ answers: ['hang', 200] });
    const { tab, site, click } = await visit(t, collector);
    await click();
    await collector.until((_, { posts }) => posts.length === 1);
    await click();
    await collector.until((counts) => counts[CLICK] === 1);
    await click();
    await tab.goto(`${site.origin}/away`);
    await collector.until((counts) => counts[CLICK] === 2);

    assert.equal(collector.posts.length, 3);
  });

  for (const where of ['the site itself', 'a collector elsewhere']) {
    test(`${where} is told neither the cookies of the visitor nor the address of the page`, async (t) => {
      const collector = new Collector();
      const elsewhere = where === 'the site itself' ? undefined : await collector.listen();
      if (elsewhere) t.after(() => elsewhere.close());
      const script = `relay.init({ allowBots: true, endpoint: '${elsewhere?.origin ?? '/otel'}' });`;
      const { tab, site } = await visit(t, collector, script);
      for (const url of [site.origin, elsewhere?.origin].filter(Boolean)) {
        await tab.context().addCookies([{ name: 'session', value: 'secret', url }]);
      }
      const planted = await tab.evaluate(() => document.cookie);
      await tab.evaluate(() => relay.recordButtonClick('save'));
      await tab.evaluate(() => relay.flush());

      const [{ headers, text }] = collector.posts;
      assert.deepEqual(
        [planted, headers.cookie, headers.referer, headers['content-type'], /secret|127\.0\.0\.1/.test(text)],
        ['session=secret', undefined, undefined, 'application/json', false],
      );
    });
  }

  test('a connect-src that forbids the collector is said once, and the page is not disturbed', async (t) => {
    const collector = new Collector();
    const elsewhere = await collector.listen();
    t.after(() => elsewhere.close());
    const script = FAST.replace('{', `{ endpoint: '${elsewhere.origin}',`);
    const { tab, click, troubles } = await visit(t, undefined, '', {
      '/': (_, response) => {
        response.setHeader('content-security-policy', "connect-src 'self'");
        return page(script);
      },
    });
    for (let n = 0; n < 3; n++) {
      await click();
      await tab.evaluate(() => relay.flush());
    }
    await tab.click('button');

    assert.deepEqual(
      [await troubles(), collector.posts.length, collector.preflights],
      [
        {
          said: [
            `${elsewhere.origin}/v1/metrics cannot be reached: is it right, and does connect-src allow it? Measurements wait.`,
          ],
          thrown: [],
        },
        0,
        0,
      ],
    );
  });

  test('a redirect, such as to a login page, is no answer: measurements wait', async (t) => {
    const collector = new Collector();
    let logins = 0;
    const { tab, click, troubles } = await visit(t, undefined, FAST, {
      '/otel/v1/metrics': (request, response) => {
        if (logins++) collector.answer(request, response);
        else response.writeHead(302, { location: '/away' }).end();
      },
    });
    await click();
    await tab.evaluate(() => relay.flush());
    const { said } = await troubles();
    await click();
    await collector.until((counts) => counts[CLICK] === 2);

    assert.deepEqual([said.length, collector.counts()], [1, { [CLICK]: 2 }]);
  });

  test('a page whose own stand-in for fetch throws is not disturbed, and is told once', async (t) => {
    const collector = new Collector();
    const broken = `const own = fetch; window.fetch = () => { throw new Error('no fetch today'); }; ${FAST} relay.captureAll(); window.fetch = own;`;
    const { tab, click, troubles } = await visit(t, collector, broken);
    await click();
    await tab.evaluate(() => relay.flush());
    await tab.evaluate(() => relay.flush());
    const { said, thrown } = await troubles();

    assert.deepEqual([said.length, thrown, collector.posts.length], [1, [], 0]);
  });
});
