// WebGL2: one draw call for edges, one for particles, one for nodes. All positions are in the world; the camera is four
// uniforms. Nothing here keeps state about particles: a position is fract(phase + speed · age + hash).
//
// Everything is looked up in textures by the number of the vertex, and nothing is instanced: where a processor draws, each
// instance is a draw call of its own, and thousands of them take longer than all their pixels.
//
// Edges and nodes change with a frame of data or the camera, a few times a second; between those they are two kept pictures
// with the particles of the moment between them.

import type { Camera, Size } from "./camera";
import type { Palette } from "./palette";
import { EDGE_FLOATS, EDGE_POINTS, NODE_FLOATS, particles, particleSlots, type Geometry, type Scene } from "./scene";

/** Things beside each other in one line of a texture, so that no side of it is longer than any machine takes. */
const COLUMNS = 64;
const EDGE_TEXELS = EDGE_FLOATS / 4;
const NODE_TEXELS = NODE_FLOATS / 4;

const COMMON = `#version 300 es
precision highp float;
precision highp int;
uniform vec4 uView;      // centre x, y, scale, device pixels per CSS pixel
uniform vec2 uSize;      // CSS pixels
ivec2 cell(int thing, int wide, int at) {
  return ivec2((thing % ${COLUMNS}) * wide + at, thing / ${COLUMNS});
}
vec4 place(vec2 world) {
  vec2 screen = (world - uView.xy) * uView.z / (uSize * 0.5);
  return vec4(screen.x, -screen.y, 0.0, 1.0);
}
`;

const EDGE_VS = `${COMMON}
uniform sampler2D uPoints;   // ${EDGE_POINTS} texels an edge
uniform sampler2D uRows;     // ${EDGE_TEXELS} texels an edge
uniform int uStride;         // from afar fewer points do
out vec3 vStyle;             // health, opacity, dashes
out float vAlong;
out float vAcross;
out float vHalfWidth;
void main() {
  float side = float(gl_VertexID % 2) * 2.0 - 1.0;
  int k = gl_VertexID / 2 % ${EDGE_POINTS};
  int row = gl_VertexID / ${EDGE_POINTS * 2};
  vec2 here = texelFetch(uPoints, cell(row, ${EDGE_POINTS}, k), 0).xy;
  vec2 before = texelFetch(uPoints, cell(row, ${EDGE_POINTS}, max(k - uStride, 0)), 0).xy;
  vec2 after = texelFetch(uPoints, cell(row, ${EDGE_POINTS}, min(k + uStride, ${EDGE_POINTS - 1})), 0).xy;
  vec2 along = after - before;
  float size = max(length(along), 1e-6);
  vec2 normal = vec2(-along.y, along.x) / size;
  vec4 style = texelFetch(uRows, cell(row, ${EDGE_TEXELS}, 0), 0);
  float pixels = style.x * clamp(uView.z, 0.35, 1.6) + 1.0;
  vStyle = style.yzw;
  vAlong = float(k / uStride) * size * 0.5;
  vAcross = side * pixels * 0.5;
  vHalfWidth = pixels * 0.5;
  gl_Position = place(here + normal * side * pixels * 0.5 / uView.z);
}`;

const EDGE_FS = `#version 300 es
precision highp float;
uniform vec3 uColors[4];
uniform vec4 uView;
in vec3 vStyle;
in float vAlong;
in float vAcross;
in float vHalfWidth;
out vec4 color;
void main() {
  float gap = vStyle.z > 0.5 ? step(0.45, fract(vAlong / 14.0)) : 0.0;
  float alpha = vStyle.y * (1.0 - 0.8 * gap) * (vStyle.x < 0.5 ? 0.5 : vStyle.x > 2.5 ? 0.8 : 0.6);
  // Borders are smoothed here: asking the context for it costs four times as much where pixels are drawn in software.
  float cover = clamp(vHalfWidth - abs(vAcross) + 0.25, 0.0, 1.0);
  color = vec4(uColors[int(vStyle.x + 0.5)], 1.0) * alpha * cover;
}`;

const PARTICLE_VS = `${COMMON}
uniform sampler2D uPoints;
uniform sampler2D uRows;
uniform float uAge;          // seconds since the frame, computed in double precision
uniform int uSlots;          // particles of one edge
out float vError;
out float vAlpha;
float hash(uint n) {
  n = n * 747796405u + 2891336453u;
  n = ((n >> ((n >> 28u) + 4u)) ^ n) * 277803737u;
  return float((n >> 22u) ^ n) / 4294967295.0;
}
void main() {
  int row = gl_VertexID / uSlots;
  uint i = uint(gl_VertexID);
  vec4 style = texelFetch(uRows, cell(row, ${EDGE_TEXELS}, 0), 0);
  vec4 motion = texelFetch(uRows, cell(row, ${EDGE_TEXELS}, 1), 0);
  float where = fract(motion.x + motion.y * uAge + hash(i * 3u)) * ${(EDGE_POINTS - 1).toFixed(1)};
  int k = min(int(where), ${EDGE_POINTS - 2});
  vec2 from = texelFetch(uPoints, cell(row, ${EDGE_POINTS}, k), 0).xy;
  vec2 to = texelFetch(uPoints, cell(row, ${EDGE_POINTS}, k + 1), 0).xy;
  vError = hash(i * 3u + 2u) < motion.w ? 1.0 : 0.0;
  vAlpha = style.z;
  gl_Position = place(mix(from, to, where - float(k)));
  gl_PointSize = (vError > 0.5 ? 7.0 : 4.4) * clamp(uView.z, 0.5, 1.4) * uView.w;
}`;

const PARTICLE_FS = `#version 300 es
precision highp float;
uniform vec3 uColors[4];
uniform vec3 uDot;
in float vError;
in float vAlpha;
out vec4 color;
void main() {
  vec2 p = gl_PointCoord * 2.0 - 1.0;
  // Failed calls are diamonds and larger: colour is not the only sign.
  float inside = vError > 0.5 ? 1.0 - smoothstep(0.7, 1.0, abs(p.x) + abs(p.y)) : 1.0 - smoothstep(0.5, 1.0, dot(p, p));
  if (inside < 0.01) discard;
  color = vec4(vError > 0.5 ? uColors[3] : uDot, 1.0) * vAlpha * inside;
}`;

const NODE_VS = `${COMMON}
uniform sampler2D uNodes;    // ${NODE_TEXELS} texels a node: box (x, y, half width, half height); health, saturation, shape, flags; newest
out vec2 vAt;
out vec2 vHalf;
flat out vec4 vStyle;
flat out float vNewest;
void main() {
  vec2 corner = vec2(float(gl_VertexID % 2), float(gl_VertexID / 2 % 2)) * 2.0 - 1.0;
  int row = gl_VertexID / 4;
  vec4 box = texelFetch(uNodes, cell(row, ${NODE_TEXELS}, 0), 0);
  vStyle = texelFetch(uNodes, cell(row, ${NODE_TEXELS}, 1), 0);
  // The share of the newest version, or less than zero.
  vNewest = texelFetch(uNodes, cell(row, ${NODE_TEXELS}, 2), 0).x;
  float border = 6.0 / uView.z + (vStyle.z > 4.5 ? 6.0 : 0.0);
  vHalf = box.zw;
  vAt = corner * (box.zw + border);
  gl_Position = place(box.xy + vAt);
}`;

const NODE_FS = `#version 300 es
precision highp float;
uniform vec3 uColors[4];
uniform vec3 uPanel;
uniform vec3 uAccent;
uniform vec4 uView;
in vec2 vAt;
in vec2 vHalf;
flat in vec4 vStyle;
flat in float vNewest;
out vec4 color;
float box(vec2 p, vec2 b, float r) {
  vec2 q = abs(p) - b + r;
  return length(max(q, 0.0)) + min(max(q.x, q.y), 0.0) - r;
}
float shape(vec2 p) {
  int kind = int(vStyle.z + 0.5);
  if (kind == 1) return box(p, vHalf, min(vHalf.x, vHalf.y));
  if (kind == 2) {
    float bow = vHalf.y * 0.25 * sqrt(max(0.0, 1.0 - p.x * p.x / (vHalf.x * vHalf.x)));
    return max(abs(p.x) - vHalf.x, abs(p.y) - (vHalf.y * 0.75 + bow));
  }
  if (kind == 3) return max(abs(p.y) - vHalf.y, abs(p.x) + abs(p.y) * 0.5 - vHalf.x);
  // A group is a box with another behind it.
  if (kind == 5) return min(box(p, vHalf, 8.0), box(p + vec2(0.0, 5.0), vHalf - vec2(7.0, 0.0), 8.0));
  if (kind == 4) return max(max(abs(p.y) - vHalf.y, abs(p.x) - vHalf.x), (abs(p.x) / vHalf.x + abs(p.y) / vHalf.y - 1.45) * vHalf.y);
  return box(p, vHalf, 6.0);
}
void main() {
  float pixel = 1.0 / uView.z;
  float d = shape(vAt);
  int flags = int(vStyle.w + 0.5);
  vec3 health = uColors[int(vStyle.x + 0.5)];
  float bad = vStyle.x > 2.5 ? 1.0 : 0.0;
  float edge = (flags & 2) != 0 ? 3.5 : (bad > 0.5 || (flags & 4) != 0) ? 3.0 : 2.0;
  float fill = 1.0 - smoothstep(-pixel, pixel, d);
  float rim = 1.0 - smoothstep(0.0, pixel, abs(d + edge * 0.5 * pixel) - edge * 0.5 * pixel);
  // A bar at the foot shows how full it is; the number is in the label.
  float bar = step(vAt.y, vHalf.y) * step(vHalf.y - 4.0, vAt.y) * step((vAt.x + vHalf.x) / (2.0 * vHalf.x), vStyle.y);
  vec3 inner = mix(uPanel, health, 0.10 + 0.12 * bad);
  inner = mix(inner, health, bar * 0.8);
  // And one at the head, how much of the traffic the newest version has.
  float newest = step(-vHalf.y + 1.0, vAt.y) * step(vAt.y, -vHalf.y + 5.0) * step((vAt.x + vHalf.x) / (2.0 * vHalf.x), vNewest);
  inner = mix(inner, uAccent, newest * 0.9);
  vec3 rimmed = mix(inner, (flags & 2) != 0 ? uAccent : health, rim);
  float halo = (flags & 8) != 0 ? (1.0 - smoothstep(0.0, 6.0 * pixel, d)) * 0.35 : 0.0;
  float alpha = max(fill, halo) * ((flags & 1) != 0 ? 0.28 : 1.0);
  if (alpha < 0.01) discard;
  color = vec4(mix(health, rimmed, fill), 1.0) * alpha;
}`;

/** A kept picture, pixel for pixel: one triangle that covers everything. */
const LAYER_VS = `#version 300 es
void main() {
  gl_Position = vec4(float(gl_VertexID % 2) * 4.0 - 1.0, float(gl_VertexID / 2) * 4.0 - 1.0, 0.0, 1.0);
}`;

const LAYER_FS = `#version 300 es
precision highp float;
uniform sampler2D uLayer;
out vec4 color;
void main() {
  color = texelFetch(uLayer, ivec2(gl_FragCoord.xy), 0);
}`;

export interface Renderer {
  load(geo: Geometry): void;
  update(scene: Scene): void;
  /** `age` is in seconds since the frame the scene was made from. */
  draw(camera: Camera, size: Size, ratio: number, age: number, moving: boolean): void;
  theme(palette: Palette): void;
  /** Particles in all; lowered when frames take long. */
  budget: number;
  dispose(): void;
}

function program(gl: WebGL2RenderingContext, vertex: string, fragment: string): WebGLProgram {
  const built = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]] as const) {
    const shader = gl.createShader(type);
    if (!shader) throw new Error("the WebGL context is gone");
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(built, shader);
  }
  gl.linkProgram(built);
  return built;
}

/** Asked once for all of them, when all are under way: each answer waits for the other process. */
function check(gl: WebGL2RenderingContext, programs: WebGLProgram[]): void {
  for (const program of programs) {
    if (gl.getProgramParameter(program, gl.LINK_STATUS)) continue;
    const words = (gl.getAttachedShaders(program) ?? []).map((shader) => gl.getShaderInfoLog(shader) ?? "");
    throw new Error(`the map's shaders: ${[gl.getProgramInfoLog(program) ?? "lost", ...words].join(" ")}`);
  }
}

function texture(gl: WebGL2RenderingContext): WebGLTexture {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  return made;
}

/** Puts `floats` of things, `texels` texels each, into the bound texture; the last line is filled up with nothing. */
function fill(gl: WebGL2RenderingContext, floats: Float32Array, things: number, texels: number, channels: 2 | 4): void {
  const lines = Math.max(1, Math.ceil(things / COLUMNS));
  const whole = new Float32Array(lines * COLUMNS * texels * channels);
  whole.set(floats.subarray(0, Math.min(floats.length, whole.length)));
  const [inside, outside] = channels === 2 ? [gl.RG32F, gl.RG] : [gl.RGBA32F, gl.RGBA];
  gl.texImage2D(gl.TEXTURE_2D, 0, inside, COLUMNS * texels, lines, 0, outside, gl.FLOAT, whole);
}

/** Particles in all; where a processor draws them, a third. */
const PARTICLES = 12_000;
const PARTICLES_SOFTWARE = 4_000;

function isSoftware(gl: WebGL2RenderingContext): boolean {
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(known ? known.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

interface Layer {
  target: WebGLFramebuffer;
  picture: WebGLTexture;
  width: number;
  height: number;
}

/** A texture unit that no data is bound to: a picture must never be read while it is painted. */
const LAYER_UNIT = 3;

function layer(gl: WebGL2RenderingContext): Layer {
  return { target: gl.createFramebuffer(), picture: texture(gl), width: 0, height: 0 };
}

function paint(gl: WebGL2RenderingContext, into: Layer, { width, height }: HTMLCanvasElement, ground: [number, number, number, number], what: () => void): void {
  gl.activeTexture(gl.TEXTURE0 + LAYER_UNIT);
  gl.bindTexture(gl.TEXTURE_2D, null);
  gl.bindFramebuffer(gl.FRAMEBUFFER, into.target);
  if (into.width !== width || into.height !== height) {
    gl.bindTexture(gl.TEXTURE_2D, into.picture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, into.picture, 0);
    gl.bindTexture(gl.TEXTURE_2D, null);
    [into.width, into.height] = [width, height];
  }
  gl.activeTexture(gl.TEXTURE0);
  gl.clearColor(...ground);
  gl.clear(gl.COLOR_BUFFER_BIT);
  what();
  gl.bindFramebuffer(gl.FRAMEBUFFER, null);
}

/** Two triangles for each piece of each edge, in drawing order. */
export function edgeTriangles(order: Uint32Array, stride: number): Uint32Array {
  const pieces = (EDGE_POINTS - 1) / stride;
  const triangles = new Uint32Array(order.length * pieces * 6);
  let at = 0;
  for (const row of order) {
    for (let piece = 0; piece < pieces; piece += 1) {
      const a = (row * EDGE_POINTS + piece * stride) * 2;
      const b = a + stride * 2;
      triangles[at] = a;
      triangles[at + 1] = a + 1;
      triangles[at + 2] = b;
      triangles[at + 3] = b;
      triangles[at + 4] = a + 1;
      triangles[at + 5] = b + 1;
      at += 6;
    }
  }
  return triangles;
}

/** Strides divide the points evenly: both ends stay where they are. */
export const edgeStride = (scale: number, edges: number): number => (scale > 0.6 && edges < FEW ? 1 : scale > 0.4 ? 2 : scale > 0.2 ? 6 : 10);
/** So many can have all their points. */
const FEW = 500;

/** `null` where there is no WebGL2: the caller draws in two dimensions instead. */
export function glRenderer(canvas: HTMLCanvasElement, first: Palette): Renderer | null {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "low-power" });
  if (!gl) return null;
  const edgeProgram = program(gl, EDGE_VS, EDGE_FS);
  const particleProgram = program(gl, PARTICLE_VS, PARTICLE_FS);
  const nodeProgram = program(gl, NODE_VS, NODE_FS);
  const layerProgram = program(gl, LAYER_VS, LAYER_FS);
  check(gl, [edgeProgram, particleProgram, nodeProgram, layerProgram]);
  const points = texture(gl);
  const rows = texture(gl);
  const boxes = texture(gl);
  const [below, above] = [layer(gl), layer(gl)];
  const bare = gl.createVertexArray();
  const edgeArray = gl.createVertexArray();
  gl.bindVertexArray(edgeArray);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  const particleArray = gl.createVertexArray();
  gl.bindVertexArray(particleArray);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  const nodeArray = gl.createVertexArray();
  gl.bindVertexArray(nodeArray);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());

  const uniform = (of: WebGLProgram, name: string) => gl.getUniformLocation(of, name);
  const uniforms = [edgeProgram, particleProgram, nodeProgram].map((of) => ({
    of,
    view: uniform(of, "uView"),
    size: uniform(of, "uSize"),
    colors: uniform(of, "uColors"),
    points: uniform(of, "uPoints"),
    rows: uniform(of, "uRows"),
    nodes: uniform(of, "uNodes"),
  }));
  const uAge = uniform(particleProgram, "uAge");
  const uSlots = uniform(particleProgram, "uSlots");
  const uStride = uniform(edgeProgram, "uStride");
  const uDot = uniform(particleProgram, "uDot");
  const uPanel = uniform(nodeProgram, "uPanel");
  const uAccent = uniform(nodeProgram, "uAccent");
  const uLayer = uniform(layerProgram, "uLayer");

  let palette = first;
  let edgeCount = 0;
  let nodeCount = 0;
  let order: Uint32Array = new Uint32Array();
  /** What the kept pictures show; empty: nothing that may be shown. */
  let kept = "";
  /** Grows with everything that changes them but the camera. */
  let version = 0;
  let rowsNow: Float32Array = new Float32Array();
  let particleCount = 0;
  /** The slots that the particles were chosen from; zero: not yet from these numbers. */
  let filled = 0;
  /** The stride that the triangles were made for; zero: none yet for this order. */
  let made = 0;

  return {
    budget: isSoftware(gl) ? PARTICLES_SOFTWARE : PARTICLES,
    theme(next) {
      palette = next;
      version += 1;
    },
    load(geo) {
      edgeCount = geo.view.edges.length;
      nodeCount = geo.view.nodes.length;
      order = new Uint32Array();
      version += 1;
      gl.bindTexture(gl.TEXTURE_2D, points);
      fill(gl, geo.edgePoints, edgeCount, EDGE_POINTS, 2);
      const corners = new Uint32Array(nodeCount * 6);
      for (let row = 0; row < nodeCount; row += 1) corners.set([0, 1, 2, 2, 1, 3].map((corner) => row * 4 + corner), row * 6);
      gl.bindVertexArray(nodeArray);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    },
    update(scene) {
      gl.bindTexture(gl.TEXTURE_2D, rows);
      fill(gl, scene.edges, edgeCount, EDGE_TEXELS, 4);
      gl.bindTexture(gl.TEXTURE_2D, boxes);
      fill(gl, scene.nodes, nodeCount, NODE_TEXELS, 4);
      order = scene.order;
      rowsNow = scene.edges;
      [made, filled] = [0, 0];
      version += 1;
    },
    draw(camera, size, ratio, age, moving) {
      const colors = new Float32Array([palette.idle, palette.ok, palette.warn, palette.bad].flat());
      const use = (at: number) => {
        const set = uniforms[at]!;
        gl.useProgram(set.of);
        gl.uniform4f(set.view, camera.x, camera.y, camera.scale, ratio);
        gl.uniform2f(set.size, size.width, size.height);
        gl.uniform3fv(set.colors, colors);
        gl.uniform1i(set.points, 0);
        gl.uniform1i(set.rows, 1);
        gl.uniform1i(set.nodes, 2);
      };
      const drawEdges = () => {
        if (order.length === 0) return;
        use(0);
        const stride = edgeStride(camera.scale, order.length);
        gl.uniform1i(uStride, stride);
        gl.bindVertexArray(edgeArray);
        if (made !== stride) {
          gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, edgeTriangles(order, stride), gl.DYNAMIC_DRAW);
          made = stride;
        }
        gl.drawElements(gl.TRIANGLES, (order.length * (EDGE_POINTS - 1) * 6) / stride, gl.UNSIGNED_INT, 0);
      };
      const drawParticles = () => {
        if (edgeCount === 0 || order.length === 0) return;
        const slots = particleSlots(this.budget, edgeCount);
        use(1);
        gl.bindVertexArray(particleArray);
        if (filled !== slots) {
          const shown = particles(rowsNow, edgeCount, slots);
          gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, shown, gl.DYNAMIC_DRAW);
          [filled, particleCount] = [slots, shown.length];
        }
        gl.uniform1f(uAge, age);
        gl.uniform1i(uSlots, slots);
        gl.uniform3f(uDot, ...palette.dot);
        gl.drawElements(gl.POINTS, particleCount, gl.UNSIGNED_INT, 0);
      };
      const drawNodes = () => {
        if (nodeCount === 0) return;
        use(2);
        gl.uniform3f(uPanel, ...palette.panel);
        gl.uniform3f(uAccent, ...palette.accent);
        gl.bindVertexArray(nodeArray);
        gl.drawElements(gl.TRIANGLES, nodeCount * 6, gl.UNSIGNED_INT, 0);
      };
      const show = ({ picture }: Layer) => {
        gl.useProgram(layerProgram);
        gl.uniform1i(uLayer, LAYER_UNIT);
        gl.activeTexture(gl.TEXTURE0 + LAYER_UNIT);
        gl.bindTexture(gl.TEXTURE_2D, picture);
        gl.activeTexture(gl.TEXTURE0);
        gl.bindVertexArray(bare);
        gl.drawArrays(gl.TRIANGLES, 0, 3);
      };

      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      [points, rows, boxes].forEach((each, unit) => {
        gl.activeTexture(gl.TEXTURE0 + unit);
        gl.bindTexture(gl.TEXTURE_2D, each);
      });
      gl.activeTexture(gl.TEXTURE0);
      gl.viewport(0, 0, canvas.width, canvas.height);
      const wanted = `${version} ${camera.x} ${camera.y} ${camera.scale} ${size.width} ${size.height} ${ratio} ${canvas.width} ${canvas.height}`;
      if (wanted !== kept) {
        paint(gl, below, canvas, [...palette.background, 1], drawEdges);
        paint(gl, above, canvas, [0, 0, 0, 0], drawNodes);
        kept = wanted;
      }
      gl.disable(gl.BLEND);
      show(below);
      gl.enable(gl.BLEND);
      if (moving) drawParticles();
      show(above);
    },
    dispose() {
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}
