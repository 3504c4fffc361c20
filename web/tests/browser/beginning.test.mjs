import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { all, Collector, click, launch, measured, page, serve, shown } from './harness.mjs';

const SESSION = 'session_duration_seconds{anonymous}';
/** What one view with one click is, once it is left. */
const view = (name) => ({
  [`cumulative_layout_shift{${name}}`]: 1,
  [`first_contentful_paint_seconds{${name}}`]: 1,
  [`first_input_delay_seconds{${name}}`]: 1,
  [`interaction_to_next_paint_seconds{${name}}`]: 1,
  [`largest_contentful_paint_seconds{${name}}`]: 1,
  [SESSION]: 1,
  [`time_to_first_byte_seconds{${name}}`]: 1,
  [`web_page_load_time_seconds{${name}, desktop}`]: 1,
});
const VIEW = view('/item/[id]');

describe('a page that begins', { timeout: 120_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  /** Views /item/42 with a click, does `more`, leaves, and gives what the collector has by then. */
  async function viewed(t, script, more = () => {}) {
    const collector = new Collector();
    const site = await serve({ '/item/42': page(script), '/away': page() }, collector);
    const tab = await chromium.visit(`${site.origin}/item/42`);
    t.after(async () => {
      await tab.context().close();
      site.close();
    });
    await shown(tab);
    await click(tab, 'button');
    const kept = await more(tab, collector);
    await tab.goto(`${site.origin}/away`);
    await tab.evaluate(() => fetch('/away')); // everything before it has arrived
    return { collector, kept, tab };
  }

  test('is not measured where a program drives the browser, unless bots are allowed', async (t) => {
    const { collector } = await viewed(t, "relay.init({}); relay.captureAll(); relay.recordButtonClick('save');");

    assert.deepEqual(collector.posts, []);
  });

  test('with a sampleRate of 0 is not measured, and keeps nothing', async (t) => {
    const script =
      "relay.init({ allowBots: true, sampleRate: 0 }); relay.captureAll(); relay.recordButtonClick('save');";
    const { collector, kept } = await viewed(t, script, (tab) => tab.evaluate(() => Object.keys(localStorage)));

    assert.deepEqual([collector.posts, kept], [[], []]);
  });

  test('without consent sends nothing and keeps nothing, not even when it is hidden', async (t) => {
    const collector = new Collector();
    const script =
      "relay.init({ allowBots: true, consent: () => false }); relay.captureAll(); relay.recordButtonClick('save');";
    const site = await serve({ '/': page(script), '/away': page() }, collector);
    t.after(() => site.close());
    const tab = await chromium.tab(site.origin);
    await shown(tab);
    await click(tab, 'button');
    const other = await chromium.tab();
    await tab.waitForFunction(() => document.visibilityState === 'hidden');
    const kept = await tab.evaluate(() => [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]);
    await tab.evaluate(() => relay.flush());
    await tab.close();
    await other.goto(`${site.origin}/away`);
    await other.evaluate(() => fetch('/away'));
    await other.close();

    assert.deepEqual([collector.posts, kept], [[], [[], [], '']]);
  });

  test('without consent has measured all the same: it goes out once consent is given', async (t) => {
    const script =
      'let agreed = false; window.agree = () => { agreed = true; }; relay.init({ allowBots: true, consent: () => agreed }); relay.captureAll();';
    const { collector } = await viewed(t, script, async (tab, collector) => {
      await tab.evaluate(() => relay.flush());
      const before = collector.posts.length;
      await tab.evaluate(() => agree());
      return before;
    });
    await collector.until(all(VIEW));

    assert.deepEqual(collector.counts(), VIEW);
  });

  test('twice is measured once', async (t) => {
    const script = 'for (const _ of [1, 2]) { relay.init({ allowBots: true }); relay.captureAll(); }';
    const { collector } = await viewed(t, script);
    await collector.until(all(VIEW));

    assert.deepEqual(collector.counts(), VIEW);
  });

  test('late sends what was recorded before, and measures what has been', async (t) => {
    const expected = { 'click_event_total{early, /item/[id]}': 1, ...view('Item') };
    const { collector } = await viewed(
      t,
      "relay.recordButtonClick('early'); relay.setPageName('Item');",
      async (tab) => {
        await tab.evaluate(() => {
          relay.init({ allowBots: true });
          relay.captureAll();
        });
        await measured(tab); // observers are told what has been
      },
    );
    await collector.until(all(expected));

    assert.deepEqual(collector.counts(), expected);
  });

  test('and ends with shutdown is not measured afterwards, and its visit has been', async (t) => {
    const { collector } = await viewed(t, 'relay.init({ allowBots: true }); relay.captureAll();', (tab) =>
      tab.evaluate(async () => {
        await relay.shutdown();
        relay.recordButtonClick('save');
        await fetch('/missing');
      }),
    );

    assert.deepEqual(
      [collector.counts()[SESSION], Object.keys(collector.counts()).filter((name) => /click|api/.test(name))],
      [1, []],
    );
  });

  test('tells an onError that throws, and is not disturbed', async (t) => {
    const script =
      "relay.init({ allowBots: true, sampleRate: 7, onError: () => { throw new Error('mine'); } }); relay.captureAll();";
    const { collector, kept } = await viewed(t, script, (tab) => tab.evaluate(() => thrown));
    await collector.until(all(VIEW));

    assert.deepEqual([kept, collector.counts()], [[], VIEW]);
  });

  test('in a frame without storage measures its visit all the same', async (t) => {
    const collector = new Collector();
    const site = await serve(
      {
        '/': '<iframe sandbox="allow-scripts" src="/frame"></iframe>',
        '/frame': page('relay.init({ allowBots: true }); relay.captureSession();'),
        '/away': page(),
      },
      collector,
    );
    t.after(() => site.close());
    const tab = await chromium.visit(site.origin);
    t.after(() => tab.context().close());
    await tab.frames()[1].waitForFunction(() => window.ready);
    await tab.goto(`${site.origin}/away`);
    await collector.until((counts) => counts[SESSION]);

    assert.deepEqual(collector.counts(), { [SESSION]: 1 });
  });
});
