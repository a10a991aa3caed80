// The address is the state: every view has a link, and going back goes back.

export type View = "map" | "table" | "service" | "traces" | "trace" | "act";
export type Group = "auto" | "service" | "team" | "zone" | "region" | "version";

export interface Where {
  view: View;
  /** The service, or the trace's id. */
  name: string;
  filter: string;
  group: Group;
  /** Groups that are open, the one opened last at the end. */
  open: string[];
  /** Only this one and its neighbours. */
  focus: string;
  /** What is selected: a name, or `web->cart`; of a trace, a span. */
  at: string;
  /** Where the map is looked at, `x,y,scale`; empty: all of it. */
  camera: string;
  /** The table's column, with a minus from the other end. */
  sort: string;
  /** Of traces: who took part, at least so many milliseconds (as it was typed), and only those that failed. */
  service: string;
  slower: string;
  failed: boolean;
}

export const GROUPS = ["auto", "service", "team", "zone", "region", "version"] as const;
export const NOWHERE: Where = { view: "map", name: "", filter: "", group: "auto", open: [], focus: "", at: "", camera: "", sort: "", service: "", slower: "", failed: false };

export function parse(path: string, query: string): Where {
  const [first = "", second = ""] = path.split("/").filter((part) => part !== "").map(decode);
  const words = new URLSearchParams(query);
  const group = GROUPS.find((known) => known === words.get("group")) ?? "auto";
  const view = (["table", "service", "traces", "trace", "act"] as const).find((known) => known === first) ?? "map";
  const open = (words.get("open") ?? "").split(",").filter((name) => name !== "");
  return { view, name: second, filter: words.get("q") ?? "", group, open, focus: words.get("focus") ?? "", at: words.get("at") ?? "", camera: words.get("camera") ?? "", sort: words.get("sort") ?? "", service: words.get("service") ?? "", slower: words.get("slower") ?? "", failed: words.has("failed") };
}

export function print({ view, name, filter, group, open, focus, at, camera, sort, service, slower, failed }: Where): string {
  const words = new URLSearchParams();
  if (filter !== "") words.set("q", filter);
  if (group !== "auto") words.set("group", group);
  if (open.length > 0) words.set("open", open.join(","));
  if (focus !== "") words.set("focus", focus);
  if (at !== "") words.set("at", at);
  if (camera !== "" && view === "map") words.set("camera", camera);
  if (sort !== "" && view === "table") words.set("sort", sort);
  if (view === "traces") {
    if (service !== "") words.set("service", service);
    if (slower !== "") words.set("slower", slower);
    if (failed) words.set("failed", "");
  }
  const path = view === "map" ? "/" : name === "" ? `/${view}` : `/${view}/${encodeURIComponent(name)}`;
  const query = words.toString();
  return query === "" ? path : `${path}?${query}`;
}

/** A hostile or half-typed address must not stop the page. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** What is typed as milliseconds; `null`: nothing that limits. */
export function milliseconds(text: string): number | null {
  const ms = Number(text);
  return text.trim() !== "" && Number.isFinite(ms) && ms > 0 ? ms : null;
}

/** The table's columns as the terminal names them; it has no others, and it sorts from one end only. */
const COLUMN = new Map(Object.entries({ name: "service", rate: "rate", errors: "success", p50: "p50", p99: "p99", concurrency: "busy", healthy: "ready", breakers: "breakers" }));
const BY: Partial<Record<Group, string>> = { team: "team", zone: "zone", region: "zone", version: "version" };

/** The command that tells about the same in a terminal; empty where there is none. */
export function command({ view, name, filter, group, focus, at, sort, service, slower, failed }: Where): string {
  const quoted = (text: string) => (/^[\w.:%@/][\w.:%@/-]*$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  /** Options first, and after `--` what begins like one and is none. */
  const words = (verb: string, options: (string | false)[], terms: string) =>
    [verb, ...options.filter((option) => option !== false), ...(terms === "" ? [] : [...(terms.startsWith("-") ? ["--"] : []), quoted(terms)])].join(" ");
  const all = (...terms: string[]) => terms.filter((term) => term !== "").join(" ");
  const by = BY[group];
  switch (view) {
    case "service":
      return words("isobar stat", ["--by instance"], `service:${name}`);
    case "map":
      if (by !== undefined) return words("isobar stat", [`--by ${by}`], filter);
      return words("isobar edges", [], all(filter, at === "" ? "" : `service:${at}`, focus === "" || focus === at ? "" : `service:${focus}`));
    case "table": {
      const column = COLUMN.get(sort);
      return words("isobar stat", [by !== undefined && `--by ${by}`, column !== undefined && `--sort ${column}`], filter);
    }
    case "traces": {
      const ms = milliseconds(slower);
      return words("isobar trace", ["--slowest", service !== "" && `--service ${quoted(service)}`, ms !== null && `--min-duration ${ms}ms`, failed && "--error"], filter);
    }
    case "trace":
      return words("isobar trace", [], name);
    default:
      return "";
  }
}

export class Address {
  where = $state<Where>({ ...NOWHERE });

  constructor() {
    this.#read();
    addEventListener("popstate", () => this.#read());
  }

  go(change: Partial<Where>, replace = false): void {
    this.where = { ...this.where, ...change };
    const address = print(this.where);
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
  }

  #read(): void {
    this.where = parse(location.pathname, location.search);
  }
}
