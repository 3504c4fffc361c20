import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Collector, launch, page, serve } from './harness.mjs';

const BEGIN = 'relay.init({ allowBots: true }); relay.captureClicks();';

describe('a click', { concurrency: 3, timeout: 60_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  /** What a page with this body counts while the visitor does these things. */
  async function counted(body, deeds, script = BEGIN) {
    const collector = new Collector();
    const { origin, close } = await serve({ '/item/42': page(script, body) }, collector);
    const tab = await chromium.visit(`${origin}/item/42`);
    await deeds(tab);
    const thrown = await tab.evaluate(async () => {
      await relay.shutdown();
      return window.thrown;
    });
    await tab.close();
    close();
    assert.deepEqual(thrown, []);
    return collector.counts();
  }

  test('is counted though a handler stops the event, prevents it, or takes the button away', async () => {
    const body = ['stop', 'immediate', 'prevent', 'remove']
      .map((name) => `<button id="${name}" data-relay-click="${name}">${name}</button>`)
      .join('');
    const script = `${BEGIN}
      const on = (id, handler) => document.getElementById(id).addEventListener('click', handler);
      on('stop', (event) => event.stopPropagation());
      on('immediate', (event) => event.stopImmediatePropagation());
      on('prevent', (event) => event.preventDefault());
      on('remove', ({ currentTarget }) => currentTarget.remove());`;
    const names = ['stop', 'immediate', 'prevent', 'remove'];
    const counts = await counted(
      body,
      async (tab) => {
        for (const name of names) await tab.click(`#${name}`);
      },
      script,
    );

    assert.deepEqual(counts, Object.fromEntries(names.map((name) => [`click_event_total{${name}, /item/[id]}`, 1])));
  });

  test('has the name that the element has at the click, and an element that came later is seen too', async () => {
    const counts = await counted('<button data-relay-click="play">Play</button>', async (tab) => {
      await tab.click('button');
      await tab.evaluate(() => document.querySelector('button').setAttribute('data-relay-click', 'pause'));
      await tab.click('button');
      await tab.evaluate(() =>
        document.body.insertAdjacentHTML('beforeend', '<a href="#x" data-relay-click="more">More</a>'),
      );
      await tab.click('a');
    });

    assert.deepEqual(counts, {
      'click_event_total{more, /item/[id]}': 1,
      'click_event_total{pause, /item/[id]}': 1,
      'click_event_total{play, /item/[id]}': 1,
    });
  });

  test('by the keyboard is one, and on a disabled button is none', async () => {
    const body =
      '<button id="on" data-relay-click="on">On</button><button id="off" disabled data-relay-click="off">Off</button>';
    const counts = await counted(body, async (tab) => {
      await tab.focus('#on');
      await tab.keyboard.press('Enter');
      await tab.click('#off', { force: true });
    });

    assert.deepEqual(counts, { 'click_event_total{on, /item/[id]}': 1 });
  });

  test('with a name that says what a visitor wrote is `other`', async () => {
    const body = '<button data-relay-click="ann@example.com?">Mail</button>';
    const counts = await counted(body, (tab) => tab.click('button'));

    assert.deepEqual(counts, { 'click_event_total{other, /item/[id]}': 1 });
  });

  test('is recorded by recordButtonClick under the name of the page that is shown', async () => {
    const counts = await counted('<p>Text</p>', (tab) =>
      tab.evaluate(() => {
        relay.recordButtonClick('save');
        relay.setPageName('chat');
        relay.recordButtonClick('save');
        relay.setPageName(undefined);
        history.pushState({}, '', '/about');
        relay.recordButtonClick('save');
      }),
    );

    assert.deepEqual(counts, {
      'click_event_total{save, /about}': 1,
      'click_event_total{save, /item/[id]}': 1,
      'click_event_total{save, chat}': 1,
    });
  });

  test('that is captured twice is one, and after shutdown it is none', async () => {
    const script = `${BEGIN} relay.captureClicks(); relay.captureAll();`;
    const counts = await counted(
      '<button data-relay-click="save">Save</button>',
      async (tab) => {
        await tab.click('button');
        await tab.evaluate(() => relay.shutdown());
        await tab.click('button');
        await tab.evaluate(() => {
          relay.init({ allowBots: true });
          relay.captureClicks();
        });
        await tab.click('button');
      },
      script,
    );

    assert.equal(counts['click_event_total{save, /item/[id]}'], 2);
  });
});
