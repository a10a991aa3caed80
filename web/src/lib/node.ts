// The service page's data (docs/live.md). Everything may be null: an unknown number is said to be unknown.

import type { Lint } from "./protocol";

export type Known = number | null;

export interface NodePage {
  name: string;
  kind: string;
  description: string | null;
  team: { name: string; contact: string | null; oncall: string | null } | null;
  seconds: { from: number; rate: Known[]; errors: Known[]; p50: Known[]; p90: Known[]; p99: Known[]; p999: Known[] };
  heatmap: { bounds_ms: number[]; columns: { at: number; counts: number[]; trace_ids: (string | null)[] }[] };
  calls: CallTile[];
  instances: InstanceRow[];
  versions: { name: string; share: Known; rate: Known; errors: Known; p50: Known; p99: Known }[];
  slo: Slo | null;
  changes: { at: number; what: string }[];
  lints: Lint[];
  logs: { at: number; instance: string; stream: string; line: string }[];
  policy: { edge: string; key: string; value: string; place: string | null }[];
}

export interface CallTile {
  from: string;
  to: string;
  rate: Known;
  errors: Known;
  p50: Known;
  p90: Known;
  p99: Known;
  p999: Known;
  retries: Known;
  budget: Known;
  breaker: { open: number; of: number } | null;
  /** Connections to who is called; callers in one place share them. */
  pool: { open: number; in_use: number; idle: number; waiting: number; max_per_instance: number | null } | null;
  spark: Known[];
}

export interface InstanceRow {
  id: string;
  zone: string | null;
  version: string | null;
  state: string;
  healthy: boolean;
  ejected: boolean;
  why: string;
  in_flight: Known;
  rate: Known;
  errors: Known;
  p99: Known;
}

export interface Slo {
  availability: { target: number; good: Known; budget_left: Known; burn_short: Known; burn_long: Known } | null;
  latency: { share: number; limit_ms: number; good: Known; budget_left: Known }[];
}

export async function fetchNode(name: string, signal: AbortSignal): Promise<NodePage> {
  const answer = await fetch(`/v1/nodes/${encodeURIComponent(name)}`, { signal });
  if (answer.status === 404) throw new Error(`no service is called ${name}`);
  if (!answer.ok) throw new Error(`the page of ${name} was refused: ${answer.status}`);
  return (await answer.json()) as NodePage;
}
