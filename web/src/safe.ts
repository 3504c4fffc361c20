/** Our failures stay ours: nothing here ever throws into the page, and on a server nothing happens at all. */

import { drop } from './registry.js';

const said = new Set<string>();
let tell: (sentence: string) => void = (sentence) => console.warn(`relay-otel: ${sentence}`);

/** Say each sentence once, where `init` was told to. */
export function say(what: unknown): void {
  try {
    const sentence = String(what);
    if (said.has(sentence)) return;
    said.add(sentence);
    tell(sentence);
  } catch {
    // Whoever listens failed too.
  }
}

export function sayTo(listener: (sentence: string) => void): void {
  tell = listener;
}

/** The same function for a page; one that gives `instead` where there is no page, and when it fails. */
export function safe<A extends unknown[]>(deed: (...values: A) => void): (...values: A) => void;
export function safe<A extends unknown[], R>(deed: (...values: A) => R, instead: R): (...values: A) => R;
export function safe<A extends unknown[], R>(deed: (...values: A) => R, instead?: R): (...values: A) => R | undefined {
  return (...values) => {
    try {
      if (typeof document !== 'undefined') return deed(...values);
    } catch (error) {
      drop('error');
      say(error);
    }
    return instead;
  };
}
