/** Metrics of a product's own: what `relay-otel contract generate` writes declares them with these two. */

import type { Definition, Label } from './definition.js';
import { pageName } from './pages.js';
import { add } from './registry.js';
import { safe } from './safe.js';

type Value<L extends Label> = L extends { readonly members: readonly (infer Member)[] } ? Member : string;

/** A value for each label; the page's name is known without being told. */
export type Values<Labels extends readonly Label[]> = {
  readonly [L in Labels[number] as L['name'] extends 'page_name' ? never : L['name']]: Value<L>;
} & { readonly [L in Labels[number] as L['name'] extends 'page_name' ? 'page_name' : never]?: string };

export interface Counter<Labels extends readonly Label[]> {
  /** Count what happened; whole numbers, 1 unless given. */
  add(labels: Values<Labels>, amount?: number): void;
}

export interface Histogram<Labels extends readonly Label[]> {
  /** Observe a value, in the unit of the metric. */
  record(value: number, labels: Values<Labels>): void;
}

interface Declared<Labels extends readonly Label[]> extends Definition {
  readonly labels: Labels;
}

const told = (definition: Definition, labels: Readonly<Record<string, unknown>>): unknown[] =>
  definition.labels.map(({ name }) => labels[name] ?? (name === 'page_name' ? pageName() : undefined));

/** A total that pages add to. */
export const counter = <const Labels extends readonly Label[]>(definition: Declared<Labels>): Counter<Labels> => ({
  add: safe((labels: Values<Labels>, amount = 1): void => add(definition, amount, told(definition, labels))),
});

/** A distribution that pages add to. */
export const histogram = <const Labels extends readonly Label[]>(definition: Declared<Labels>): Histogram<Labels> => ({
  record: safe((value: number, labels: Values<Labels>): void => add(definition, value, told(definition, labels))),
});
