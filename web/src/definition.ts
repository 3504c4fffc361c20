/** What a metric and a label are: the terms of contract.gen.ts. */

export interface Label {
  readonly name: string;
  /** A closed set: a value outside it becomes `other`. */
  readonly members?: readonly string[];
  /** What a value may look like: all of it must match. */
  readonly pattern?: RegExp;
  /** At most so many different values from one page, then `other`. */
  readonly limit?: number;
}

export interface Definition {
  readonly name: string;
  readonly unit: string;
  /** In the order in which `add` takes their values. */
  readonly labels: readonly Label[];
  /** Upper bounds of a histogram's buckets; none for a counter. */
  readonly bounds?: readonly number[];
}
