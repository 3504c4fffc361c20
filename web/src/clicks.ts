/** Clicks on named buttons: `click_event_total`. */

import { CLICK_EVENT_TOTAL } from './contract.gen.js';
import { capturing } from './init.js';
import { pageName } from './pages.js';
import { add } from './registry.js';
import { safe } from './safe.js';

/** Count a click on the button that the page calls so. */
export const recordButtonClick = /* @__PURE__ */ safe((buttonName: string): void =>
  add(CLICK_EVENT_TOTAL, 1, [buttonName, pageName()]),
);

/** Count clicks on, or within, elements with the attribute `data-relay-click="name"`. */
export const captureClicks = /* @__PURE__ */ capturing(() => {
  const clicked = safe(({ target }: Event): void => {
    const name = (target as Element | null)?.closest?.('[data-relay-click]')?.getAttribute('data-relay-click');
    if (name) recordButtonClick(name);
  });
  // Capturing: a handler that stops the event does not hide it.
  document.addEventListener('click', clicked, true);
  return () => document.removeEventListener('click', clicked, true);
});
