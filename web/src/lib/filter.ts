// The filter language of the terminal (telemetry::filter), term for term: one line, all terms must hold. Both are tested
// against the same table of cases, so a filter means the same here and there.

export type WordKey =
  | "any" | "service" | "from" | "to" | "operation" | "version" | "zone" | "instance" | "team" | "kind" | "has" | "trace" | `tag.${string}`;
export type NumberKey =
  | "status" | "p50" | "p90" | "p95" | "p99" | "p99.9" | "rate" | "errors" | "retries" | "duration" | "spans" | "attempts";

/** What a filter asks of a row. What a row does not know is not met. Durations in seconds, shares in fractions. */
export interface Row {
  words(key: WordKey): string[];
  number(key: NumberKey): number | null;
  edges?(): [string, string][];
}

export interface Mistake {
  /** Offset and length of the term in question. */
  at: number;
  length: number;
  message: string;
  hint: string | null;
}

type Test = (row: Row) => boolean;

export interface Filter {
  matches: Test;
  empty: boolean;
  /** It names ends of calls: the services at both ends are meant too. */
  aboutCalls: boolean;
  /** Words it asks for that nothing on a map has. */
  keys: string[];
}

export type Parsed = { filter: Filter; mistake: null } | { filter: null; mistake: Mistake };

const WORDS = ["service", "from", "to", "operation", "version", "zone", "instance", "team", "kind", "has", "trace"];
const NUMBERS = ["status", "p50", "p90", "p95", "p99", "p99.9", "rate", "errors", "retries", "duration", "spans", "attempts"];
const HAS = ["error", "retry", "hedge", "fault", "breaker", "timeout", "canary", "inferred"];
const TERMS_MAX = 64;
const TEXT_MAX = 4096;

class Complaint extends Error {
  readonly hint: string | null;
  constructor(message: string, hint: string | null = null) {
    super(message);
    this.hint = hint;
  }
}

export function parse(text: string): Parsed {
  const wrong = (at: number, length: number, message: string, hint: string | null = null): Parsed => ({ filter: null, mistake: { at, length, message, hint } });
  if (new TextEncoder().encode(text).length > TEXT_MAX) return wrong(0, text.length, `a filter of ${text.length} characters; at most ${TEXT_MAX} fit`);
  const split = terms(text);
  if ("open" in split) return wrong(split.open, text.length - split.open, "a quote that is never closed");
  const tests: Test[] = [];
  const keys: string[] = [];
  let aboutCalls = false;
  for (const { at, raw } of split.terms) {
    if (tests.length === TERMS_MAX) return wrong(at, raw.length, `more than ${TERMS_MAX} terms`);
    try {
      const { test, key, calls } = term(raw);
      tests.push(test);
      keys.push(key);
      aboutCalls ||= calls;
    } catch (error) {
      if (error instanceof Complaint) return wrong(at, raw.length, error.message, error.hint);
      throw error;
    }
  }
  return { filter: { matches: (row) => tests.every((test) => test(row)), empty: tests.length === 0, aboutCalls, keys }, mistake: null };
}

/** Quotes keep spaces and are taken away. */
function terms(text: string): { terms: { at: number; raw: string }[] } | { open: number } {
  const found: { at: number; raw: string }[] = [];
  let current: { at: number; raw: string } | null = null;
  let quote: number | null = null;
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at]!;
    if (letter === '"') {
      quote = quote === null ? at : null;
      current ??= { at, raw: "" };
    } else if (/\s/.test(letter) && quote === null) {
      if (current) found.push(current);
      current = null;
    } else {
      current ??= { at, raw: "" };
      current.raw += letter;
    }
  }
  if (quote !== null) return { open: quote };
  if (current) found.push(current);
  return { terms: found };
}

function pattern(text: string): (word: string) => boolean {
  const openStart = text.startsWith("*");
  const rest = openStart ? text.slice(1) : text;
  const openEnd = rest.endsWith("*");
  const core = (openEnd ? rest.slice(0, -1) : rest).toLowerCase();
  return (word) => {
    const lower = word.toLowerCase();
    if (openStart && openEnd) return lower.includes(core);
    if (openStart) return lower.endsWith(core);
    if (openEnd) return lower.startsWith(core);
    return lower === core;
  };
}

function term(raw: string): { test: Test; key: string; calls: boolean } {
  const minus = raw.startsWith("-");
  const body = minus ? raw.slice(1) : raw;
  const start = body.search(/[:<>=!]/);
  const turned = (not: boolean, test: Test): Test => (row) => test(row) !== not;
  if (start < 0) {
    if (body === "") throw new Complaint("an empty term");
    const matches = pattern(`*${body}*`);
    return { test: turned(minus, (row) => row.words("any").some(matches)), key: "any", calls: false };
  }
  const key = body.slice(0, start);
  const operator = /^[:<>=!]+/.exec(body.slice(start))![0];
  const value = body.slice(start + operator.length);
  const not = operator.startsWith("!") ? !minus : minus;
  if (![":", "=", "!:", "!=", "<", "<=", ">", ">="].includes(operator)) throw new Complaint(`\`${operator}\` is no comparison`, "use : != < <= > >=");
  const compare = operator.replace("!", "").replace(":", "=");
  const lower = key.toLowerCase();
  if (value === "") throw new Complaint(`\`${key}${operator}\` has no value`);
  if (NUMBERS.includes(lower)) return { test: turned(not, numberTest(lower as NumberKey, key, compare, value)), key: lower, calls: lower === "retries" };
  let word: WordKey;
  if (lower.startsWith("tag.")) {
    if (lower === "tag.") throw new Complaint("`tag.` needs the tag's key", "as in tag.http.route:/cart");
    word = `tag.${key.slice(4)}`;
  } else if (WORDS.includes(lower)) word = lower as WordKey;
  else throw unknown(key);
  if (compare !== "=") throw new Complaint(`\`${key}\` is a word and has no order`, `write ${key}:${value}`);
  const arrow = word === "service" ? value.indexOf("->") : -1;
  if (arrow >= 0) {
    const [source, destination] = [value.slice(0, arrow), value.slice(arrow + 2)];
    if (source === "" || destination === "") throw new Complaint("an edge needs both ends", "as in service:web->cart, or from:web");
    const [one, other] = [pattern(source), pattern(destination)];
    return { test: turned(not, (row) => (row.edges?.() ?? []).some(([from, to]) => one(from) && other(to))), key: "service", calls: true };
  }
  const parts = value.split(",").filter((part) => part !== "");
  if (word === "has") {
    const bad = parts.map((part) => part.replace(/^\*|\*$/g, "").toLowerCase()).find((part) => !HAS.includes(part));
    if (bad !== undefined) throw new Complaint(`\`has:${bad}\` is not known`, `one of ${HAS.join(", ")}`);
  }
  if (parts.length === 0) throw new Complaint(`\`${key}${operator}\` has no value`);
  const patterns = parts.map(pattern);
  const test: Test = (row) => row.words(word).some((one) => patterns.some((matches) => matches(one)));
  return { test: turned(not, test), key: lower, calls: word === "from" || word === "to" };
}

const SECONDS: Record<string, number> = { ns: 1e-9, us: 1e-6, "µs": 1e-6, "μs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, d: 86_400 };
const PER: Record<string, number> = { "/s": 1, "/min": 1 / 60, "/h": 1 / 3600, "/d": 1 / 86_400 };

function quantity(key: string, kind: string, text: string, units: Record<string, number>): number {
  const found = /^(\d+(?:\.\d+)?)\s*(.*)$/.exec(text.trim());
  if (!found) throw new Complaint(`\`${key}\` wants a ${kind}: \`${text}\` is no number`);
  const size = units[found[2]!];
  if (size !== undefined) return Number(found[1]) * size;
  if (found[2] !== "") throw new Complaint(`\`${key}\` wants a ${kind}: \`${found[2]}\` is no unit of it`);
  if (kind === "duration" && Number(found[1]) === 0) return 0;
  throw new Complaint(`\`${key}\` wants a ${kind}: \`${text}\` without its unit (${Object.keys(units).join(", ")})`);
}

function numberTest(number: NumberKey, key: string, compare: string, value: string): Test {
  const held = (wanted: number): Test => (row) => {
    const is = row.number(number);
    if (is === null || Number.isNaN(is)) return false;
    return compare === "<" ? is < wanted : compare === "<=" ? is <= wanted : compare === ">" ? is > wanted : compare === ">=" ? is >= wanted : is === wanted;
  };
  switch (number) {
    case "status": {
      const lower = value.toLowerCase();
      const inClass = (wanted: number): Test => (row) => {
        const is = row.number("status");
        return is !== null && Math.floor(is / 100) === wanted;
      };
      if (compare === "=" && lower === "none") return inClass(0);
      if (/^\d+xx$/.test(lower)) {
        const wanted = Number(lower.slice(0, -2));
        if (compare !== "=" || wanted < 1 || wanted > 5) throw new Complaint(`\`status${value}\` is no class of status`, "as in status:5xx or status>=500");
        return inClass(wanted);
      }
      if (!/^\d{1,3}$/.test(value)) throw new Complaint(`\`${value}\` is no status`, "as in status:503, status:5xx or status>=500");
      return held(Number(value));
    }
    case "rate":
      return held(quantity(key, "rate", value, PER));
    case "errors":
    case "retries":
      return held(quantity(key, "share", value, { "%": 0.01 }));
    case "spans":
    case "attempts":
      if (!/^\d+$/.test(value)) throw new Complaint(`\`${key}\` wants a whole number, not \`${value}\``);
      return held(Number(value));
    default:
      return held(quantity(key, "duration", value, SECONDS));
  }
}

function unknown(key: string): Complaint {
  const known = [...WORDS, ...NUMBERS];
  const near = known.map((name): [number, string] => [distance(name, key.toLowerCase()), name]).sort((a, b) => a[0] - b[0] || (a[1] < b[1] ? -1 : 1))[0]!;
  const hint = near[0] <= 2 ? `did you mean \`${near[1]}\`?` : `known are ${known.join(", ")}, and tag.KEY`;
  return new Complaint(`\`${key.slice(0, 40)}\` is nothing to filter by`, hint);
}

/** How many letters must change to turn one word into the other. */
function distance(a: string, b: string): number {
  const other = [...b].slice(0, 40);
  let row = Array.from({ length: other.length + 1 }, (_, i) => i);
  [...a].forEach((letter, i) => {
    const next = [i + 1];
    other.forEach((one, j) => next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + Number(letter !== one))));
    row = next;
  });
  return row[other.length]!;
}
