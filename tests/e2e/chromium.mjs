// URL, browser and number in; so many visits of real Chromium contexts, and the counts that they must give, out.
//   node chromium.mjs http://127.0.0.1:8000 /usr/bin/chromium 12
// One line of JSON: [metric, labels, count] for each.

import { createRequire } from 'node:module';

const { chromium } = createRequire(new URL('../../web/package.json', import.meta.url))('playwright-core');
const [url, executablePath, number] = process.argv.slice(2);
const AT_ONCE = 2;
const PAGE = { page_name: '/item/[id]' };
const counts = new Map();

function count(metric, labels, times = 1) {
  const key = JSON.stringify([metric, labels]);
  counts.set(key, (counts.get(key) ?? 0) + times);
}

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const waiting = Array.from({ length: Number(number) }, (_, index) => index);
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let index = waiting.pop(); index !== undefined; index = waiting.pop()) await visit(index);
  }),
);
// A context that is closed takes along what is under way, so all stay open until the last beacon of each was answered.
await fetch(`${url}/left/${number}`);
await browser.close();
console.log(JSON.stringify([...counts].map(([key, times]) => [...JSON.parse(key), times])));

async function visit(index) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${url}/item/${index}`);
  await page.evaluate(() => new Promise((seen) => new PerformanceObserver(seen).observe({ type: 'largest-contentful-paint', buffered: true })));
  const clicks = 1 + (index % 3);
  for (let click = 0; click < clicks; click++) await page.click('button');
  await page.evaluate(() => new Promise((seen) => new PerformanceObserver(seen).observe({ type: 'first-input', buffered: true })));
  // web-vitals looks at interactions when it is idle, and loses the only one of a page that is left before (6.2.3).
  await page.evaluate(() => new Promise((idle) => requestIdleCallback(idle, { timeout: 1000 })));
  if (index % 2) {
    await page.evaluate(() => fetch('/api/item/42'));
    count('api_call_errors_client_total', { endpoint: '/api/item/[id]', error_type: 'http_5xx', status_code: '503' });
  }
  await page.goto('about:blank');

  count('click_event_total', { ...PAGE, button_name: 'login' }, clicks);
  count('web_page_load_time_seconds', { ...PAGE, device_type: 'desktop' });
  count('session_duration_seconds', { user_type: 'anonymous' });
  for (const metric of [
    'largest_contentful_paint_seconds',
    'interaction_to_next_paint_seconds',
    'cumulative_layout_shift',
    'first_input_delay_seconds',
    'first_contentful_paint_seconds',
    'time_to_first_byte_seconds',
  ])
    count(metric, PAGE);
}
