/** Options in; a running package out: where measurements go, whether they may, and what ends with it. */

import { isBot } from './device.js';
import { setRoutes } from './pages.js';
import { isOff, turn } from './registry.js';
import { safe, say, sayTo } from './safe.js';
import { openTransport, type Transport } from './transport.js';

export interface Options {
  /** Where measurements go: a path of the app, or a collector's browser receiver. `/otel` unless given. */
  readonly endpoint?: string;
  /** The app's routes, such as `/item/[id]`, for names of pages. */
  readonly routes?: readonly string[];
  /** Milliseconds between two sendings: 10,000 unless given. What is there is also sent when the page is left. */
  readonly flushIntervalMs?: number;
  /** Share of page views that are measured, by chance, 0 to 1. Counters are then partial: nothing is scaled. */
  readonly sampleRate?: number;
  /** Nothing leaves the page, and nothing is kept in the browser, while this says false. */
  readonly consent?: () => boolean;
  /** Measure programs too, such as browsers that tests drive. */
  readonly allowBots?: boolean;
  /** Where each kind of trouble is said once; on the console unless given. */
  readonly onError?: (sentence: string) => void;
}

export interface Handle {
  /** Send what is there now; resolves when it was answered. */
  flush(): Promise<void>;
  /** Send what is there, and measure no more until the next `init`. */
  shutdown(): Promise<void>;
}

type End = () => void;

let transport: Transport | undefined;
let begun = false;
let url: string | undefined;
let consent = (): boolean => true;
const captures = new Map<() => End, End>();

/** Send what is there now; resolves when it was answered. */
export const flush = /* @__PURE__ */ safe(async (): Promise<void> => transport?.flush(), Promise.resolve());

/** Send what is there, and measure no more until the next `init`. */
export const shutdown = /* @__PURE__ */ safe(async (): Promise<void> => {
  captures.forEach((end) => end());
  captures.clear();
  const stopped = transport?.stop();
  begun = false;
  transport = undefined;
  turn(false);
  await stopped;
}, Promise.resolve());

const handle: Handle = { flush, shutdown };

/** Begin. What was recorded before is sent too; a second call changes nothing. On a server it does nothing. */
export const init = /* @__PURE__ */ safe((options: Options = {}): Handle => {
  if (begun) return handle;
  begun = true;
  if (options.onError) sayTo(options.onError);
  consent = options.consent ?? consent;
  url = metricsUrl(options.endpoint || '/otel');
  const interval = within('flushIntervalMs', options.flushIntervalMs, 10_000, 100, 3_600_000);
  const share = within('sampleRate', options.sampleRate, 1, 0, 1);
  turn(!!url && (!!options.allowBots || !isBot()) && Math.random() < share);
  if (url && !isOff()) {
    setRoutes(options.routes ?? []);
    transport = openTransport(url, interval, mayKeep);
  }
  return handle;
}, handle);

/** Something that measures by itself: begins once however often it is called, and ends at `shutdown`. */
export const capturing = (begin: () => End): (() => void) =>
  safe((): void => {
    if (!isOff() && !captures.has(begin)) captures.set(begin, begin());
  });

/** Whether a URL is where measurements go. */
export const isOurs = (asked: string): boolean => asked === url;

/** Whether something may leave the page, or be kept in the browser. Who cannot say it has not agreed. */
export function mayKeep(): boolean {
  try {
    return consent() === true; // the promise of an async function is no yes
  } catch (error) {
    say(error);
    return false;
  }
}

/** As OpenTelemetry's exporters do it: the signal's path is added to an endpoint that lacks it. */
function metricsUrl(endpoint: string): string | undefined {
  try {
    const { origin, pathname, protocol } = new URL(endpoint, document.baseURI);
    if (protocol.startsWith('http')) return `${origin}${pathname.replace(/\/(v1\/metrics)?$/, '')}/v1/metrics`;
  } catch {
    // Said below.
  }
  say(`endpoint is '${endpoint}'; give a path, or an http URL. Nothing is measured.`);
  return undefined;
}

function within(name: string, value: number | undefined, normal: number, least: number, most: number): number {
  if (value === undefined) return normal;
  if (value >= least && value <= most) return value;
  say(`${name} is ${value}; give ${least} to ${most}. ${normal} is used.`);
  return normal;
}
