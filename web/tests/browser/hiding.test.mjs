import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';

import { all, Collector, click, launch, page, serve, shown } from './harness.mjs';

const SESSION = 'session_duration_seconds{anonymous}';
const BEGIN = 'relay.init({ allowBots: true }); relay.captureAll();';

/** A page whose clock can be put forward: by the address it begins with, and by `shift`. */
const BODY = `<h1>A page with something to see</h1><button>Send</button>
<script>
window.shift = Number(new URLSearchParams(location.search).get('minutes')) * 60_000;
const { now } = Date;
Date.now = () => now() + shift;
</script>`;

// Tabs of one window really hide each other: visibilityState, its event and the page's freezing are the browser's own.
describe('a tab that is hidden', { timeout: 120_000 }, () => {
  let chromium;
  let collector;
  let site;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());
  beforeEach(async () => {
    collector = new Collector();
    site = await serve({ '/item/42': page(BEGIN, BODY), '/away': page('', BODY) }, collector);
  });
  afterEach(async () => {
    await Promise.all(
      chromium.browser
        .contexts()[0]
        .pages()
        .map((tab) => tab.close()),
    );
    site.close();
  });

  /** A view of /item/42 that was shown and clicked. */
  async function view(query = '') {
    const tab = await chromium.tab(`${site.origin}/item/42${query}`);
    await shown(tab);
    await click(tab, 'button');
    return tab;
  }

  const hide = () => chromium.tab();

  async function show(tab) {
    await tab.bringToFront();
    await tab.waitForFunction(() => document.visibilityState === 'visible');
  }

  const kept = (tab) => tab.evaluate(() => Object.values(localStorage).length);

  /** The page's last requests were begun before this is answered. */
  async function everythingArrived() {
    const later = await chromium.tab(`${site.origin}/away`);
    await later.evaluate(() => fetch('/away'));
  }

  test('has sent its vitals by then, and its visit once it is closed', async () => {
    const tab = await view();
    const vitals = {
      'cumulative_layout_shift{/item/[id]}': 1,
      'first_contentful_paint_seconds{/item/[id]}': 1,
      'first_input_delay_seconds{/item/[id]}': 1,
      'interaction_to_next_paint_seconds{/item/[id]}': 1,
      'largest_contentful_paint_seconds{/item/[id]}': 1,
      'time_to_first_byte_seconds{/item/[id]}': 1,
      'web_page_load_time_seconds{/item/[id], desktop}': 1,
    };
    await hide();
    await collector.until(all(vitals));
    const hidden = collector.counts();
    await show(tab);
    await tab.close();
    await collector.until((counts) => counts[SESSION]);
    await everythingArrived();

    assert.deepEqual([hidden, collector.counts()], [vitals, { ...vitals, [SESSION]: 1 }]);
  });

  test('and shown again, where content jumps and clicks are slow, has no second CLS and no second INP', async () => {
    const tab = await view();
    await hide();
    await collector.until((counts) => counts['cumulative_layout_shift{/item/[id]}']);
    await show(tab);
    await tab.evaluate(() => {
      document.querySelector('button').addEventListener('click', () => {
        for (const end = performance.now() + 120; performance.now() < end; );
      });
    });
    await tab.click('button');
    const jumped = await tab.evaluate(
      () =>
        new Promise((resolve) => {
          // What follows a click within 500 ms is expected, and no shift.
          new PerformanceObserver((list) => {
            const [shift] = list.getEntries().filter((entry) => !entry.hadRecentInput && entry.value > 0);
            if (shift) resolve(shift.value);
          }).observe({ type: 'layout-shift' });
          const jump = () => {
            document.body.prepend(Object.assign(document.createElement('p'), { style: 'height: 90px' }));
            setTimeout(jump, 100);
          };
          jump();
        }),
    );
    await hide();
    await tab.close();
    await collector.until((counts) => counts[SESSION]);
    await everythingArrived();

    const { 'cumulative_layout_shift{/item/[id]}': cls, 'interaction_to_next_paint_seconds{/item/[id]}': inp } =
      collector.counts();
    assert.deepEqual([jumped > 0, cls, inp], [true, 1, 1]);
  });

  test('and closed while nobody looks has its visit counted', async () => {
    const tab = await view();
    await hide();
    await collector.until((counts) => counts['interaction_to_next_paint_seconds{/item/[id]}']);
    await tab.close();
    await collector.until((counts) => counts[SESSION]);
    await everythingArrived();

    assert.equal(collector.counts()[SESSION], 1);
  });

  test('is not visited meanwhile: a visit is the time for which its page was visible', async () => {
    const tab = await view();
    const put = (minutes) => tab.evaluate((minutes) => (window.shift += minutes * 60_000), minutes);
    await put(10);
    await hide();
    await put(25);
    await show(tab);
    await put(5);
    await tab.close();
    await collector.until((counts) => counts[SESSION]);

    const { count, sum } = collector.series()[SESSION];
    assert.deepEqual([count, Math.floor(sum / 60)], [1, 15]);
  });

  test('and killed there has its visit counted once, by the first page that begins 30 minutes later', async () => {
    const tab = await view();
    await tab.evaluate(() => {
      relay.setUserType('authenticated');
      window.shift += 2 * 60_000;
    });
    await hide();
    await tab.waitForFunction(() => Object.values(localStorage).length === 1);
    const session = await tab.context().newCDPSession(tab);
    session.send('Page.crash').catch(() => {});
    await tab.waitForEvent('crash');
    await tab.close();

    const early = await view('?minutes=20'); // the killed page's clock was 2 minutes ahead
    const keptEarly = await kept(early);
    await early.evaluate(() => relay.flush());
    const countedEarly = collector.counts()['session_duration_seconds{authenticated}'];
    for (const minutes of [33, 34, 35]) {
      const later = await view(`?minutes=${minutes}`);
      await later.evaluate(() => relay.flush());
      await later.close();
    }
    await early.evaluate(() => relay.shutdown());

    const { count, sum } = collector.series()['session_duration_seconds{authenticated}'];
    assert.deepEqual([keptEarly, countedEarly, count, Math.floor(sum / 60)], [1, undefined, 1, 2]);
  });

  test('so long that another page has counted its visit begins a new one when it is shown again', async () => {
    const tab = await view();
    const put = (minutes) => tab.evaluate((minutes) => (window.shift += minutes * 60_000), minutes);
    await put(3);
    await hide();
    await tab.waitForFunction(() => Object.values(localStorage).length === 1);
    const other = await view('?minutes=40');
    await other.evaluate(() => relay.flush());
    await other.close(); // a visit of its own: some seconds
    await put(37);
    await show(tab);
    await put(5);
    await tab.close();
    await collector.until((counts) => counts[SESSION] === 3);
    await everythingArrived();

    const { count, sum } = collector.series()[SESSION];
    assert.deepEqual([count, Math.floor(sum / 60)], [3, 8]);
  });

  test('and frozen and thawed by the browser goes on as if nothing had been', async () => {
    const tab = await view();
    const session = await tab.context().newCDPSession(tab);
    await tab.evaluate(() => {
      window.frozen = 0;
      document.addEventListener('freeze', () => (window.frozen += 1));
    });
    await hide();
    await session.send('Page.setWebLifecycleState', { state: 'frozen' });
    await session.send('Page.setWebLifecycleState', { state: 'active' });
    await show(tab);
    const frozen = await tab.evaluate(() => window.frozen);
    await tab.evaluate(() => relay.recordButtonClick('save'));
    await tab.close();
    await collector.until((counts) => counts[SESSION]);
    await everythingArrived();

    assert.deepEqual(
      [frozen, collector.counts()[SESSION], collector.counts()['click_event_total{save, /item/[id]}']],
      [1, 1, 1],
    );
  });
});

describe('a page that comes back from the cache of the browser', { timeout: 60_000 }, () => {
  test('is a view and a visit of its own, and its load is not counted again', async (t) => {
    const chromium = await launch();
    t.after(() => chromium.close());
    const collector = new Collector();
    const site = await serve({ '/item/42': page(BEGIN), '/away': page() }, collector);
    t.after(() => site.close());
    const tab = await chromium.tab(`${site.origin}/item/42`);
    await shown(tab);
    await click(tab, 'button');
    await tab.evaluate(() => {
      addEventListener('pageshow', ({ persisted }) => {
        // web-vitals measures the second frame after it.
        requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => (window.restored = persisted))));
      });
      location.href = '/away';
    });
    await tab.waitForURL('**/away');
    await collector.until((counts) => counts[SESSION] === 1);
    await tab.evaluate(() => history.back());
    await tab.waitForFunction(() => window.restored === true);
    await tab.close();
    const expected = {
      'cumulative_layout_shift{/item/[id]}': 2,
      'first_contentful_paint_seconds{/item/[id]}': 2,
      'first_input_delay_seconds{/item/[id]}': 1,
      'interaction_to_next_paint_seconds{/item/[id]}': 1,
      'largest_contentful_paint_seconds{/item/[id]}': 2,
      [SESSION]: 2,
      'time_to_first_byte_seconds{/item/[id]}': 2,
      'web_page_load_time_seconds{/item/[id], desktop}': 1,
    };
    await collector.until(all(expected));

    assert.deepEqual(collector.counts(), expected);
  });
});
