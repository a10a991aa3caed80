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
}

export const GROUPS = ["auto", "service", "team", "zone", "region", "version"] as const;
export const NOWHERE: Where = { view: "map", name: "", filter: "", group: "auto", open: [], focus: "", at: "", camera: "", sort: "" };

export function parse(path: string, query: string): Where {
  const [first = "", second = ""] = path.split("/").filter((part) => part !== "").map(decode);
  const words = new URLSearchParams(query);
  const group = GROUPS.find((known) => known === words.get("group")) ?? "auto";
  const view = (["table", "service", "traces", "trace", "act"] as const).find((known) => known === first) ?? "map";
  const open = (words.get("open") ?? "").split(",").filter((name) => name !== "");
  return { view, name: second, filter: words.get("q") ?? "", group, open, focus: words.get("focus") ?? "", at: words.get("at") ?? "", camera: words.get("camera") ?? "", sort: words.get("sort") ?? "" };
}

export function print({ view, name, filter, group, open, focus, at, camera, sort }: Where): string {
  const words = new URLSearchParams();
  if (filter !== "") words.set("q", filter);
  if (group !== "auto") words.set("group", group);
  if (open.length > 0) words.set("open", open.join(","));
  if (focus !== "") words.set("focus", focus);
  if (at !== "") words.set("at", at);
  if (camera !== "" && view === "map") words.set("camera", camera);
  if (sort !== "" && view === "table") words.set("sort", sort);
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

/** The command that tells about the same in a terminal; empty where there is none. */
export function command({ view, name, filter }: Where): string {
  const quoted = (text: string) => (/^[\w.:%@/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const filtered = (verb: string) => (filter === "" ? verb : `${verb} ${quoted(filter)}`);
  switch (view) {
    case "service":
      return `isobar stat ${quoted(`service:${name}`)} --by instance`;
    case "map":
      return filtered("isobar edges");
    case "table":
      return filtered("isobar stat");
    case "traces":
      return filtered("isobar trace");
    case "trace":
      return `isobar trace ${quoted(name)}`;
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
