import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';

import { Collector, launch, page, serve } from './harness.mjs';

const SESSION = 'session_duration_seconds{anonymous}';
const KEY = 'relay-otel.session.0.5';
const WEB_VITALS = new URL('../../node_modules/web-vitals/dist/web-vitals.js', import.meta.url);

/** Time passes when the test says so: `pass(7)` is 7 seconds. */
const CLOCK = 'let now = Date.now(); Date.now = () => now; window.pass = (seconds) => { now += seconds * 1000; };';

describe('a visit that may have ended without a word', { timeout: 60_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  async function site(t, pages = {}) {
    const collector = new Collector();
    const { origin, close } = await serve({ '/': page(), ...pages }, collector);
    t.after(close);
    return { collector, origin };
  }

  /** A tab over this one, which hides it; resolves when the page was told. */
  async function hide(tab) {
    const hidden = tab.evaluate(
      () => new Promise((resolve) => document.addEventListener('visibilitychange', () => setTimeout(resolve))),
    );
    const cover = await chromium.tab();
    await hidden;
    return cover;
  }

  async function show(tab, cover) {
    const visible = tab.evaluate(
      () => new Promise((resolve) => document.addEventListener('visibilitychange', () => setTimeout(resolve))),
    );
    await cover.close();
    await tab.bringToFront();
    await visible;
  }

  const keys = (tab) => tab.evaluate(() => Object.keys(localStorage));
  const keep = (tab, minutesAgo, rest) =>
    tab.evaluate(
      ([key, ms, rest]) => localStorage.setItem(key, `${Date.now() - ms} ${rest}`),
      [KEY, minutesAgo * 60_000, rest],
    );
  const begin = (tab) =>
    tab.evaluate(() => {
      relay.init({ allowBots: true });
      relay.captureSession();
      relay.recordButtonClick('save');
      return relay.flush();
    });

  test('is left alone for 30 minutes: its page may come back', async (t) => {
    const { collector, origin } = await site(t);
    const tab = await chromium.tab(origin);
    await keep(tab, 29, '7000 anonymous');

    await begin(tab);

    assert.deepEqual([await keys(tab), collector.counts()], [[KEY], { 'click_event_total{save, /}': 1 }]);
    await tab.close();
  });

  test('is counted by the first tab that begins after that, and by no other', async (t) => {
    const { collector, origin } = await site(t);
    const tabs = [await chromium.tab(origin), await chromium.tab(origin), await chromium.tab(origin)];
    await keep(tabs[0], 31, '7000 authenticated');

    for (const tab of tabs) await begin(tab);

    assert.deepEqual(collector.series(), {
      'click_event_total{save, /}': { count: 3, sum: 3 },
      'session_duration_seconds{authenticated}': { count: 1, sum: 7 },
    });
    assert.deepEqual(await keys(tabs[0]), []);
    for (const tab of tabs) await tab.close();
  });

  test('and was written by nobody we know is counted as invalid, once', async (t) => {
    const { collector, origin } = await site(t);
    const tab = await chromium.tab(origin);
    await keep(tab, 31, 'long anonymous');

    await begin(tab);

    assert.deepEqual(
      [await keys(tab), collector.counts()],
      [[], { 'click_event_total{save, /}': 1, 'relay_web_dropped_total{invalid}': 1 }],
    );
    await tab.close();
  });

  test('is as long as it was seen, to the second, and leaves nothing behind when it is told after all', async (t) => {
    const { collector, origin } = await site(t, {
      '/item': page(`${CLOCK} relay.init({ allowBots: true }); relay.captureSession();`),
    });
    const tab = await chromium.tab(`${origin}/item`);
    await tab.evaluate(() => pass(7));
    const cover = await hide(tab);
    await tab.evaluate(() => pass(100));
    await show(tab, cover);
    await tab.evaluate(() => pass(5));
    await hide(tab);
    await tab.evaluate(() => pass(1_000));

    const before = (await keys(tab)).length;
    await tab.close(); // nobody looks: pagehide is all that the page hears

    await collector.until((counts) => counts[SESSION]);
    const later = await chromium.tab(origin);
    assert.deepEqual([before, await keys(later)], [1, []]);
    assert.deepEqual(collector.series(), { [SESSION]: { count: 1, sum: 12 } });
    await later.close();
  });

  test('has one CLS, the first that web-vitals reports, though it reports again what grew', async (t) => {
    const { collector, origin } = await site(t, {
      '/web-vitals.js': await readFile(WEB_VITALS, 'utf8'),
      '/item': page(`relay.init({ allowBots: true }); relay.recordCoreWebVitals();
        import { onCLS } from '/web-vitals.js';
        window.reports = [];
        onCLS(({ id, value }) => reports.push([id, value]));
        window.jump = (px) => new Promise((resolve) => {
          new PerformanceObserver(() => setTimeout(resolve)).observe({ type: 'layout-shift' });
          document.body.prepend(Object.assign(document.createElement('p'), { style: 'height: ' + px + 'px' }));
        });`),
    });
    const tab = await chromium.tab(`${origin}/item`);
    await tab.evaluate(() => jump(20));
    const cover = await hide(tab);
    await show(tab, cover);
    await tab.evaluate(() => jump(200));
    await hide(tab);
    const reports = await tab.evaluate(() => window.reports);
    await tab.evaluate(() => relay.flush());

    assert.deepEqual([reports.length, reports[0][0] === reports[1][0], reports[1][1] > reports[0][1]], [2, true, true]);
    assert.deepEqual(collector.series()['cumulative_layout_shift{/item}'], { count: 1, sum: reports[0][1] });
    await tab.close();
  });
});
