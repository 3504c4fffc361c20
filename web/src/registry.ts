/** Measurements in; deltas out. Nothing here knows of networks or pages. */

import { BEYOND, MOST, RELAY_WEB_DROPPED_TOTAL } from './contract.gen.js';
import type { Definition, Label } from './definition.js';
import { say } from './safe.js';

/** What was counted of one series since the last `take`. */
export interface Point {
  readonly definition: Definition;
  readonly values: readonly string[];
  count: number;
  sum: number;
  /** One more than bounds; empty for a counter. */
  readonly buckets: number[];
}

export type Reason = 'queue_full' | 'rejected' | 'invalid' | 'error';

/** Series one page keeps between two sendings; further ones are counted under `other`. */
const MOST_SERIES = 300;
/** The same with full points, which wait where a server does not answer; at 999 counts each, only a loop gets there. */
const MOST_POINTS = 500;

let series = new Map<string, Point>();
let waiting: (() => void)[] = [];
const seen = new Map<Label, Set<string>>();
let onChange: () => void = () => {};
let off = false;

/** Count `value` of a counter, or observe it in a histogram. Label values in the order of the definition. */
export function add(definition: Definition, value: number, values: readonly unknown[]): void {
  if (off) return;
  const { bounds } = definition;
  if (!(typeof value === 'number' && value >= 0 && value <= (bounds ? Math.max(...bounds) * BEYOND : MOST))) {
    say(`${definition.name} was given what it cannot be.`);
    return drop('invalid');
  }
  // An upper bound belongs to its bucket: 2.5 s is still good.
  const buckets = bounds
    ? [...bounds, Infinity].map((bound, i, all) => +(value <= bound && !(value <= all[i - 1]!)))
    : [];
  merge({ definition, values: admitted(definition, values), count: bounds ? 1 : value, sum: value, buckets });
  onChange();
}

/**
 * Record when it is taken: a page's name may be known later than what is measured of it, since a router tells it after
 * the first bytes have arrived.
 */
export function later(record: () => void): void {
  if (off) return;
  waiting.push(record);
  onChange();
}

/** Count measurements that were given up. */
export function drop(reason: Reason, count = 1): void {
  for (; count > 0; count -= MOST) add(RELAY_WEB_DROPPED_TOTAL, Math.min(count, MOST), [reason]);
}

/** Everything counted since the last time. */
export function take(): Point[] {
  const due = waiting;
  waiting = [];
  for (const record of due) record();
  const taken = [...series.values()];
  series = new Map();
  return taken;
}

/** What could not be sent is counted again, beside what came since. */
export function giveBack(points: readonly Point[]): void {
  points.forEach(merge);
}

export const size = (): number => series.size + waiting.length;

/** Be told of each measurement. */
export function watch(listener: () => void): void {
  onChange = listener;
}

export const isOff = (): boolean => off;

/** From now on count nothing, and forget what was counted; or begin again. */
export function turn(on: boolean): void {
  off = !on;
  if (off) take();
}

function merge(point: Point): void {
  const key = [point.definition.name, ...point.values].join('\n');
  const found = series.get(key);
  if (!found) {
    if (series.size >= MOST_SERIES) {
      const values = point.definition.labels.map((label, i) => (label.limit ? 'other' : point.values[i]!));
      if (values.join() !== point.values.join()) return merge({ ...point, values });
    }
    series.set(key, point);
  } else if (found.count + point.count > MOST) {
    if (series.size >= MOST_POINTS && point.definition !== RELAY_WEB_DROPPED_TOTAL)
      return drop('queue_full', point.count);
    series.set(`${key}\n${series.size}`, found);
    series.set(key, point);
  } else {
    found.count += point.count;
    found.sum += point.sum;
    point.buckets.forEach((count, i) => (found.buckets[i]! += count));
  }
}

function admitted(definition: Definition, values: readonly unknown[]): string[] {
  return definition.labels.map((label, i) => {
    const value = String(values[i]);
    if (!(label.members ? label.members.includes(value) : label.pattern!.test(value))) return 'other';
    if (label.limit) {
      const known = seen.get(label) ?? new Set();
      seen.set(label, known);
      if (known.size >= label.limit - 1 && !known.has(value)) return 'other';
      known.add(value);
    }
    return value;
  });
}
