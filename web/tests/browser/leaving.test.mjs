import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { all, Collector, click, launch, page, serve, shown } from './harness.mjs';

/** What one view of /item/42 with one click is, whatever happens afterwards. */
const VIEW = {
  'cumulative_layout_shift{/item/[id]}': 1,
  'first_contentful_paint_seconds{/item/[id]}': 1,
  'first_input_delay_seconds{/item/[id]}': 1,
  'interaction_to_next_paint_seconds{/item/[id]}': 1,
  'largest_contentful_paint_seconds{/item/[id]}': 1,
  'session_duration_seconds{anonymous}': 1,
  'time_to_first_byte_seconds{/item/[id]}': 1,
  'web_page_load_time_seconds{/item/[id], desktop}': 1,
};
/** A page that wants to hear of its end is not kept in the browser's cache, where it would live on. */
const GONE = "addEventListener('unload', () => {});";

const LEAVE = {
  navigating: (tab, origin) => tab.goto(`${origin}/away`),
  reloading: (tab) => tab.reload(),
  closing: (tab) => tab.close(),
};

describe('a view of a page that is left', { timeout: 120_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  /** A site whose page begins once: a second view measures nothing, so that all there is belongs to the first. */
  async function site(collector, endpoint = '/otel') {
    let views = 0;
    const script = `${GONE} relay.init({ endpoint: '${endpoint}', allowBots: true }); relay.captureAll();`;
    return serve({ '/item/42': () => page(views++ ? '' : script), '/away': page(), '/': page() }, collector);
  }

  /** Whatever the page has begun to send has arrived: it is gone, and a request of a later page was answered. */
  async function everythingArrived(origin) {
    const later = await chromium.visit(origin);
    await later.evaluate(() => fetch('/away'));
    await later.context().close();
  }

  for (const [how, leave] of Object.entries(LEAVE)) {
    test(`by ${how} is one point of each vital, of the load and of the visit`, async () => {
      const collector = new Collector();
      const { origin, close } = await site(collector);
      const tab = await chromium.visit(`${origin}/item/42`);
      await shown(tab);
      await click(tab, 'button');

      await leave(tab, origin);

      await collector.until(all(VIEW));
      await everythingArrived(origin);
      close();
      assert.deepEqual(collector.counts(), VIEW);
    });

    test(`by ${how} loses nothing to a collector elsewhere that thinks 600 ms about a preflight`, async () => {
      const collector = new Collector({ preflightMs: 600 });
      const elsewhere = await collector.listen();
      const { origin, close } = await site(undefined, elsewhere.origin);
      const tab = await chromium.visit(`${origin}/item/42`);
      await shown(tab);
      await click(tab, 'button');

      await leave(tab, origin);

      await collector.until(all(VIEW));
      await everythingArrived(origin);
      close();
      elsewhere.close();
      assert.deepEqual([collector.counts(), collector.preflights > 0], [VIEW, true]);
    });
  }

  test('without keepalive is lost where the collector thinks about a preflight: it is what the tests above stand on', async () => {
    const collector = new Collector({ preflightMs: 600 });
    const elsewhere = await collector.listen();
    const script = `${GONE} document.addEventListener('visibilitychange', () => fetch('${elsewhere.origin}/v1/metrics', {
      method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } }));`;
    const { origin, close } = await serve({ '/item/42': page(script), '/away': page(), '/': page() });
    const tab = await chromium.visit(`${origin}/item/42`);
    await shown(tab);

    await tab.goto(`${origin}/away`);

    await collector.until((_, { preflightsOver }) => preflightsOver === 1);
    await everythingArrived(origin);
    close();
    elsewhere.close();
    assert.deepEqual([collector.preflights, collector.posts], [1, []]);
  });

  test('an interval sends what is there while the page lives', async () => {
    const collector = new Collector();
    const { origin, close } = await serve(
      { '/': page(`relay.init({ allowBots: true, flushIntervalMs: 100 }); relay.recordButtonClick('save');`) },
      collector,
    );
    const tab = await chromium.visit(origin);

    await collector.until((counts) => counts['click_event_total{save, /}']);

    await tab.context().close();
    close();
    assert.deepEqual(collector.counts(), { 'click_event_total{save, /}': 1 });
  });
});
