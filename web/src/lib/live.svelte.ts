// The connection: a WebSocket that resumes after a drop, Server-Sent Events when none can be opened, and always an honest
// word about how old the picture is.

import { applyFrame, decodeFrame, emptyState, type LiveState, type MapDoc } from "./protocol";

export type Link = "connecting" | "live" | "lost" | "refused";

/** Above the first the age is shown in amber, above the second the picture is grey and said to be stale. */
export const AGE_WARN_MS = 1_000;
export const AGE_STALE_MS = 5_000;

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5_000;
/** This often in a row without a single frame and we try the fallback. */
const SOCKET_FAILURES_MAX = 3;

export class Live {
  doc = $state.raw<MapDoc | null>(null);
  state = $state.raw<LiveState>(emptyState());
  link = $state<Link>("connecting");
  /** What went wrong last, in words for a person. */
  trouble = $state<string | null>(null);
  /** How old the oldest request was that a frame showed first, once it was drawn: measured by the server, on one clock. */
  age = $state<number | null>(null);
  /** `performance.now()` when the newest frame came in. */
  arrived = $state(0);
  /** Held by a person: frames still come and are kept, the picture stays. */
  paused = $state(false);

  /** So many came. */
  frames = 0;

  #socket: WebSocket | null = null;
  #events: EventSource | null = null;
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #loading = false;
  /** Where the frames are; what is shown, unless it is held. */
  #latest: LiveState = emptyState();
  #marker: { id: number; came: number } | null = null;

  start(): void {
    this.#stopped = false;
    void this.#loadMap();
    this.#open();
  }

  /** After a login. */
  again(): void {
    this.stop();
    this.link = "connecting";
    this.trouble = null;
    this.#failures = 0;
    this.start();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#events?.close();
  }

  pause(on: boolean): void {
    this.paused = on;
    const latest = this.#latest;
    // Deltas are put into the same maps: what is held needs maps of its own.
    this.state = on ? { ...latest, nodes: new Map(latest.nodes), edges: new Map(latest.edges) } : { ...latest };
  }

  /** The page calls this after the frame it got has been drawn. */
  drawn(): void {
    const marker = this.#marker;
    if (marker === null || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#marker = null;
    this.#socket.send(JSON.stringify({ marker: marker.id, age_ms: Math.round(performance.now() - marker.came) }));
  }

  async #loadMap(): Promise<void> {
    if (this.#loading) return;
    this.#loading = true;
    try {
      const answer = await fetch("/v1/map", { headers: { Accept: "application/json" } });
      if (answer.status === 401 || answer.status === 403) {
        // Nothing of what was seen stays for whoever sits down next.
        this.doc = null;
        this.link = "refused";
        this.trouble = "this isobar asks for its token";
        this.stop();
        return;
      }
      if (!answer.ok) throw new Error(`the map was refused: ${answer.status}`);
      this.doc = (await answer.json()) as MapDoc;
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
    } finally {
      this.#loading = false;
    }
  }

  #open(): void {
    if (this.#failures >= SOCKET_FAILURES_MAX) {
      this.#listen();
      return;
    }
    const socket = new WebSocket(this.#address());
    socket.binaryType = "arraybuffer";
    this.#follow(socket);
  }

  #address(): string {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const { sequence, revision } = this.#latest;
    const has = sequence > 0 ? `?resume=${sequence}&revision=${revision}` : "";
    return `${scheme}://${location.host}/v1/live${has}`;
  }

  #follow(socket: WebSocket): void {
    this.#socket = socket;
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (typeof data === "string") this.#words(data);
      else this.#frame(data);
    };
    socket.onclose = () => socket === this.#socket && this.#lost();
  }

  #words(text: string): void {
    const message = JSON.parse(text) as { marker?: number; age_ms?: number | null; change?: number };
    if (typeof message.age_ms === "number") this.age = message.age_ms;
    // A hidden page draws nothing; its age would say how long nobody looked.
    if (typeof message.marker === "number") this.#marker = document.hidden || this.paused ? null : { id: message.marker, came: performance.now() };
    if (typeof message.change === "number") void this.#loadMap();
  }

  #frame(bytes: ArrayBuffer): void {
    const frame = decodeFrame(bytes);
    const next = applyFrame(this.#latest, frame);
    if (next === null) {
      // A gap: a keyframe puts it right.
      if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ resume: 0 }));
      return;
    }
    this.#failures = 0;
    this.link = "live";
    this.trouble = null;
    this.arrived = performance.now();
    if (next.revision !== this.doc?.revision) void this.#loadMap();
    this.#latest = next;
    this.frames += 1;
    if (!this.paused) this.state = next;
  }

  #lost(): void {
    if (this.#stopped) return;
    this.#failures += 1;
    if (this.link !== "refused") this.link = "lost";
    this.trouble ??= "isobar does not answer";
    // A login ends some day, and a closed connection does not say why it closed.
    if (this.#failures === 2) void this.#loadMap();
    const wait = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(this.#failures, 6));
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  /** Back to a socket if one can be opened. */
  #probe(events: EventSource): void {
    const socket = new WebSocket(this.#address());
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (this.#stopped || this.#events !== events) {
        socket.close();
        return;
      }
      events.close();
      this.#events = null;
      this.#follow(socket);
    };
  }

  #listen(): void {
    const events = new EventSource("/v1/live/events");
    this.#events = events;
    // Only over a socket is the age measured.
    this.age = null;
    let probed = false;
    events.addEventListener("frame", ({ data }: MessageEvent<string>) => {
      // Whether sockets are blocked or nobody was there to answer one shows now that somebody is.
      if (!probed) this.#probe(events);
      probed = true;
      this.#frame(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer);
    });
    events.addEventListener("change", () => void this.#loadMap());
    events.onerror = () => {
      events.close();
      this.#failures = 0;
      this.#lost();
    };
  }
}
