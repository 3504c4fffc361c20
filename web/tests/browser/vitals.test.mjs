import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { all, Collector, click, launch, observed, page, serve, shown } from './harness.mjs';

/** A single page app of two routes: a click on its link changes the address, and then what is shown. */
const APP = `<main><h1>The list of all items</h1></main><a href="/item/42">Item</a><script>
document.querySelector('a').addEventListener('click', (event) => {
  event.preventDefault();
  history.pushState({}, '', '/item/42');
  document.querySelector('main').innerHTML = '<h1>This is item 42, with its long description</h1><p>It is red.</p>';
});
</script>`;

const vitals = (name) => ({
  [`cumulative_layout_shift{${name}}`]: 1,
  [`first_contentful_paint_seconds{${name}}`]: 1,
  [`largest_contentful_paint_seconds{${name}}`]: 1,
});
const landing = (name) => ({
  ...vitals(name),
  [`first_input_delay_seconds{${name}}`]: 1,
  [`interaction_to_next_paint_seconds{${name}}`]: 1,
  [`time_to_first_byte_seconds{${name}}`]: 1,
});

describe('web vitals', { concurrency: 3, timeout: 60_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  /** A page with this script that is shown, used, and left for another counts this, and nothing else. */
  async function assertCounted(expected, script, use, body) {
    const collector = new Collector();
    const { origin, close } = await serve({ '/list': page(script, body), '/away': page() }, collector);
    const tab = await chromium.visit(`${origin}/list`);
    await shown(tab);
    await use(tab);
    await tab.goto(`${origin}/away`);
    await collector.until(all(expected));
    await tab.evaluate(() => fetch('/away'));
    await tab.close();
    close();
    assert.deepEqual(collector.counts(), expected);
  }

  /** Resolves once the route was painted, and Chromium has told of it. */
  async function follow(tab) {
    await click(tab, 'a');
    await observed(tab, 'soft-navigation');
    await observed(tab, 'interaction-contentful-paint');
    await tab.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
  }

  test('of a route are those of the page that was loaded, also when the address has changed', async () => {
    await assertCounted(landing('/list'), 'relay.init({ allowBots: true }); relay.recordCoreWebVitals();', follow, APP);
  });

  test('with softNavigations are of each route by its own name, and a route has no time to its first byte', async () => {
    const script = 'relay.init({ allowBots: true }); relay.recordCoreWebVitals({ softNavigations: true });';
    await assertCounted({ ...landing('/list'), ...vitals('/item/[id]') }, script, follow, APP);
  });

  test('are counted once, however often they are asked for, and FID of the first of two clicks', async () => {
    const script = `relay.init({ allowBots: true });
      relay.recordCoreWebVitals(); relay.recordCoreWebVitals({ softNavigations: true }); relay.captureAll();`;
    await assertCounted(
      {
        ...landing('/list'),
        'session_duration_seconds{anonymous}': 1,
        'web_page_load_time_seconds{/list, desktop}': 1,
      },
      script,
      async (tab) => {
        await click(tab, 'button');
        await click(tab, 'button');
      },
    );
  });

  test('of a page without a click have no INP and no FID', async () => {
    await assertCounted(
      { ...vitals('/list'), 'time_to_first_byte_seconds{/list}': 1 },
      'relay.init({ allowBots: true }); relay.recordCoreWebVitals();',
      () => {},
    );
  });

  test('have the name that the page was given after it was loaded', async () => {
    const script = 'relay.init({ allowBots: true, flushIntervalMs: 3_600_000 }); relay.recordCoreWebVitals();';
    await assertCounted(landing('All items'), script, async (tab) => {
      await click(tab, 'button');
      await tab.evaluate(() => relay.setPageName('All items'));
    });
  });

  test('keep their names where the next route is named: each has its own', async () => {
    const script = `relay.init({ allowBots: true, flushIntervalMs: 3_600_000 });
      relay.recordCoreWebVitals({ softNavigations: true });
      relay.setPageName('All items');
      document.querySelector('a').addEventListener('click', () => relay.setPageName('One item'));`;
    await assertCounted({ ...landing('All items'), ...vitals('One item') }, script, follow, APP);
  });

  test('measured before init are sent too, with the load and the visit', async () => {
    const script = `relay.captureAll();
      await new Promise((resolve) => new PerformanceObserver(() => setTimeout(resolve)).observe({ type: 'paint', buffered: true }));
      relay.init({ allowBots: true });`;
    await assertCounted(
      {
        ...landing('/list'),
        'session_duration_seconds{anonymous}': 1,
        'web_page_load_time_seconds{/list, desktop}': 1,
      },
      script,
      (tab) => click(tab, 'button'),
    );
  });
});
