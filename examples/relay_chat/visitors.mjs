// The demo's page in; visits of people with a real browser out, and a line of book for each.
//
//   node visitors.mjs --url http://127.0.0.1:8000 --chromium /usr/bin/chromium
//
// Each visit is a JSON line: what the server answered, and what the browser package must have counted, as far as it can
// be known from outside: what was clicked, what the page said, that it was seen and left. SIGTERM ends it after the
// visit that is under way.

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const { chromium } = createRequire(new URL('../../web/package.json', import.meta.url))('playwright-core');
const { url, chromium: executablePath } = parseArgs({
  options: { url: { type: 'string' }, chromium: { type: 'string' } },
}).values;

const PAGE = 'chat';
// The package measures no programs. These people look like people.
const AGENT = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36';
const PHONE = 'Mozilla/5.0 (Linux; Android 16; Pixel 10) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36';
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-blink-features=AutomationControlled',
];

let going = true;
process.on('SIGTERM', () => (going = false));

const browser = await chromium.launch({ executablePath, args: ARGS, handleSIGTERM: false });
for (let number = 0; going; number++) console.log(JSON.stringify(await visit(number)));
await browser.close();

/** Somebody comes, asks, looks for something, logs in or fails to, and leaves. */
async function visit(number) {
  const phone = number % 3 === 2;
  const context = await browser.newContext({
    userAgent: phone ? PHONE : AGENT,
    viewport: phone ? { width: 412, height: 915 } : { width: 1280, height: 800 },
    isMobile: phone,
    hasTouch: phone,
  });
  const page = await context.newPage();
  const answers = [];
  const counts = new Map();
  const count = (metric, labels) => {
    const key = JSON.stringify([metric, labels]);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  };
  const beacons = [];
  page.on('response', (answer) => {
    const { pathname, origin } = new URL(answer.url());
    if (origin !== new URL(url).origin) return;
    if (pathname.startsWith('/otel/')) beacons.push(answer.status());
    else answers.push([answer.request().method(), pathname, answer.status()]);
    if (pathname.startsWith('/api/') && answer.status() >= 400) {
      const labels = { endpoint: pathname, error_type: `http_${answer.status() < 500 ? 4 : 5}xx`, status_code: `${answer.status()}` };
      count('api_call_errors_client_total', labels);
    }
  });

  await page.goto(url);
  await page.locator('#messages li').first().waitFor();
  await submit('chat', 'send_message', { message: 'what does a request cost today' });
  if (number % 2) await submit('search', undefined, { q: 'observable' });
  const login = [undefined, 'ada-demo', 'a wrong word'][number % 3];
  if (login) await submit('login', 'log_in', { name: 'ada', password: login });
  if (number % 4 === 1) {
    await page.locator('#new').click();
    await page.locator('#new[aria-busy=false]').waitFor();
    count('click_event_total', { button_name: 'new_conversation', page_name: PAGE });
  }
  await page.evaluate(
    () => new Promise((seen) => new PerformanceObserver(seen).observe({ type: 'first-input', buffered: true })),
  );
  // web-vitals looks at interactions when it is idle, and loses the only one of a page that is left before (6.2.3).
  await page.evaluate(() => new Promise((idle) => requestIdleCallback(idle, { timeout: 1000 })));
  const user = login === 'ada-demo' ? 'authenticated' : 'anonymous';
  // A context that is closed takes along what is under way; so one more answer of the server is awaited first.
  // Not by a page, for which Chromium would ask an icon.
  await page.goto('about:blank');
  await context.request.get(`${url}/otel/v1/metrics`);
  await context.close();

  count('web_page_load_time_seconds', { page_name: PAGE, device_type: phone ? 'mobile' : 'desktop' });
  count('session_duration_seconds', { user_type: user });
  for (const metric of [
    'largest_contentful_paint_seconds',
    'interaction_to_next_paint_seconds',
    'cumulative_layout_shift',
    'first_input_delay_seconds',
    'first_contentful_paint_seconds',
    'time_to_first_byte_seconds',
  ])
    count(metric, { page_name: PAGE });
  return { answers, beacons, counts: [...counts].map(([key, value]) => [...JSON.parse(key), value]) };

  /** Fill in a form and send it; it is over when its button works again. */
  async function submit(form, button, values) {
    for (const [name, value] of Object.entries(values)) await page.locator(`#${form} [name=${name}]`).fill(value);
    if (button) {
      await page.locator(`#${form} button`).click();
      count('click_event_total', { button_name: button, page_name: PAGE });
    } else await page.locator(`#${form} input`).press('Enter');
    await page.locator(`#${form}[aria-busy=false]`).waitFor({ state: 'attached' });
    const failed = await page.locator('#said').textContent();
    count('form_submission_total', { form_name: form, status: failed ? 'error' : 'success' });
  }
}
