/** What kind of device this is. */

export type DeviceType = 'mobile' | 'tablet' | 'desktop';

export function deviceType(): DeviceType {
  const { userAgent, userAgentData, maxTouchPoints } = navigator as Navigator & { userAgentData?: { mobile: boolean } };
  // An iPad says that it is a Macintosh; none of those has a touch screen. Android without "Mobile" is a tablet.
  if (/iPad|Tablet|Android(?!.*Mobile)/.test(userAgent) || (/Macintosh/.test(userAgent) && maxTouchPoints > 1))
    return 'tablet';
  if (userAgentData?.mobile || /Mobi/.test(userAgent)) return 'mobile';
  return 'desktop';
}

/** Programs that visit: they say so, or are driven. */
export const isBot = (): boolean =>
  navigator.webdriver || /bot|crawl|spider|headless|lighthouse/i.test(navigator.userAgent);
