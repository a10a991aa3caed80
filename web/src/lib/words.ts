// The one place where numbers become the words that the map, the table and the panel all show. So they cannot disagree.

import { millis, rate, share } from "./format";
import { NODE_FLAG, type MapDoc, type NodeRecord } from "./protocol";
import { nodeHealth } from "../map/scene";
import type { Health } from "../map/palette";
import type { Drawn, Records, View } from "./view";

export interface Said {
  id: number;
  name: string;
  team: string;
  health: Health;
  rate: string;
  errors: string;
  p50: string;
  p99: string;
  busy: string;
  queue: string;
  healthy: string;
  breakers: string;
  /** Signs that something is up, worst first: a fault in force, a promise broken, a breaker open, somebody missing. */
  signs: string[];
}

export const HEALTH_MARK: Record<Health, string> = { idle: "·", ok: "●", warn: "▲", bad: "◆" };
export const HEALTH_WORD: Record<Health, string> = { idle: "idle", ok: "ok", warn: "warning", bad: "failing" };

export function say(doc: MapDoc, node: Drawn, now: Records): Said {
  const record: NodeRecord | undefined = now.nodes.get(node.id);
  const teams = new Set(node.members.flatMap((id) => doc.nodes[id]?.team ?? []));
  const [team] = teams;
  const breaker = now.breakers.get(node.id);
  const together = now.together && (node.members.length > 1 || node.zones.length > 0);
  const p99 = millis(record?.p99 ?? NaN);
  const said: Said = {
    id: node.id,
    name: node.name,
    team: teams.size === 1 && team !== undefined ? (doc.teams[team]?.name ?? "") : teams.size > 1 ? `${teams.size} teams` : "",
    health: nodeHealth(record),
    rate: rate(record?.rate ?? NaN),
    errors: share(record?.errors ?? NaN),
    p50: millis(record?.p50 ?? NaN),
    p99: together && p99 !== "–" ? `≤${p99}` : p99,
    busy: share(record?.concurrency ?? NaN),
    queue: share(record?.queue ?? NaN),
    healthy: record && record.instances > 0 ? `${record.healthy} of ${record.instances}` : "–",
    breakers: breaker && breaker[1] > 0 ? `${breaker[0]} open of ${breaker[1]}` : "–",
    signs: [],
  };
  if (!record) return said;
  if ((record.flags & NODE_FLAG.fault) !== 0) said.signs.push("⚡ fault");
  if (breaker && breaker[0] > 0) said.signs.push(`◆ ${breaker[0]} of ${breaker[1]} breakers open`);
  if ((record.flags & NODE_FLAG.slo) !== 0) said.signs.push("▲ SLO burns");
  if (record.healthy < record.instances) said.signs.push(`▲ ${record.healthy} of ${record.instances} healthy`);
  if (record.ejected > 0) said.signs.push(`▲ ${record.ejected} ejected`);
  if ((record.flags & NODE_FLAG.starting) !== 0) said.signs.push("starting");
  const newest = node.members.length === 1 ? doc.nodes[node.members[0]!]?.versions.at(-1) : undefined;
  if (node.version === null && newest !== undefined && Number.isFinite(record.newest)) said.signs.push(`${newest} ${share(record.newest)}`);
  return said;
}

export const sayAll = (doc: MapDoc, view: View, now: Records): Said[] => view.nodes.map((node) => say(doc, node, now));

/** One sentence about the whole, for those who cannot see it. */
export function summary(rows: Said[]): string {
  const of = (health: Health) => rows.filter((row) => row.health === health);
  const [bad, warn] = [of("bad"), of("warn")];
  const named = (some: Said[]) => some.slice(0, 5).map((row) => row.name).join(", ") + (some.length > 5 ? ` and ${some.length - 5} more` : "");
  const trouble = [
    ...(bad.length > 0 ? [`${bad.length} failing: ${named(bad)}`] : []),
    ...(warn.length > 0 ? [`${warn.length} with a warning: ${named(warn)}`] : []),
  ];
  return `${rows.length} drawn; ${trouble.length > 0 ? trouble.join("; ") : "nothing is wrong"}.`;
}
