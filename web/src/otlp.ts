/** Points in; bodies of OTLP/HTTP JSON out. https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding */

import type { Definition } from './definition.js';
import type { Point } from './registry.js';

const DELTA = 1;
/** A histogram's point is at most 1.3 kB, so a body stays below the 64 kB of fetch(keepalive) and of the collector. */
export const POINTS_A_BODY = 45;

export interface Body {
  readonly text: string;
  readonly points: readonly Point[];
}

/** One body for each 45 points. */
export function encode(points: readonly Point[], now: number): Body[] {
  const bodies: Body[] = [];
  for (let i = 0; i < points.length; i += POINTS_A_BODY) {
    const some = points.slice(i, i + POINTS_A_BODY);
    bodies.push({ text: JSON.stringify(request(some, now)), points: some });
  }
  return bodies;
}

/** No resource, scope or version: the collector adds up all browsers, and calls them `web`. */
function request(points: readonly Point[], now: number): unknown {
  const metrics = new Map<Definition, unknown[]>();
  for (const point of points) {
    const dataPoints = metrics.get(point.definition) ?? [];
    metrics.set(point.definition, dataPoints);
    dataPoints.push(dataPoint(point, `${now}000000`)); // nanoseconds as text: they are beyond a double's whole numbers
  }
  return {
    resourceMetrics: [
      {
        scopeMetrics: [{ metrics: [...metrics].map(metric) }],
      },
    ],
  };
}

function metric([{ name, unit, bounds }, dataPoints]: [Definition, unknown[]]): unknown {
  const data = { aggregationTemporality: DELTA, dataPoints };
  return bounds ? { name, unit, histogram: data } : { name, unit, sum: { ...data, isMonotonic: true } };
}

function dataPoint({ definition, values, count, sum, buckets }: Point, timeUnixNano: string): unknown {
  const { bounds, labels } = definition;
  const common = { attributes: labels.map((label, i) => attribute(label.name, values[i]!)), timeUnixNano };
  return bounds
    ? { ...common, count: `${count}`, sum, bucketCounts: buckets.map(String), explicitBounds: bounds }
    : { ...common, asInt: `${count}` };
}

const attribute = (key: string, stringValue: string): unknown => ({ key, value: { stringValue } });
