// WebGL2: one draw call for edges, one for particles, one for nodes. All positions are in the world; the camera is four
// uniforms. Nothing here keeps state about particles: a position is fract(phase + speed · age + hash).

import type { Camera, Size } from "./camera";
import type { Palette } from "./palette";
import { EDGE_FLOATS, EDGE_POINTS, NODE_FLOATS, type Geometry, type Scene } from "./scene";

const COMMON = `#version 300 es
precision highp float;
precision highp int;
uniform vec4 uView;      // centre x, y, scale, device pixels per CSS pixel
uniform vec2 uSize;      // CSS pixels
vec4 place(vec2 world) {
  vec2 screen = (world - uView.xy) * uView.z / (uSize * 0.5);
  return vec4(screen.x, -screen.y, 0.0, 1.0);
}
`;

const EDGE_VS = `${COMMON}
uniform sampler2D uPoints;   // row: edge, column: point
uniform sampler2D uRows;     // row: edge, two texels
uniform int uStride;         // from afar fewer points do
in float aEdge;
out vec3 vStyle;             // health, opacity, dashes
out float vAlong;
out float vAcross;
out float vHalfWidth;
void main() {
  int k = gl_VertexID / 2 * uStride;
  float side = float(gl_VertexID % 2) * 2.0 - 1.0;
  int row = int(aEdge);
  vec2 here = texelFetch(uPoints, ivec2(k, row), 0).xy;
  vec2 before = texelFetch(uPoints, ivec2(max(k - uStride, 0), row), 0).xy;
  vec2 after = texelFetch(uPoints, ivec2(min(k + uStride, ${EDGE_POINTS - 1}), row), 0).xy;
  vec2 along = after - before;
  float size = max(length(along), 1e-6);
  vec2 normal = vec2(-along.y, along.x) / size;
  vec4 style = texelFetch(uRows, ivec2(0, row), 0);
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
  vec4 style = texelFetch(uRows, ivec2(0, row), 0);
  vec4 motion = texelFetch(uRows, ivec2(1, row), 0);
  float where = fract(motion.x + motion.y * uAge + hash(i * 3u)) * ${(EDGE_POINTS - 1).toFixed(1)};
  int k = min(int(where), ${EDGE_POINTS - 2});
  vec2 from = texelFetch(uPoints, ivec2(k, row), 0).xy;
  vec2 to = texelFetch(uPoints, ivec2(k + 1, row), 0).xy;
  bool shown = hash(i * 3u + 1u) < motion.z && style.z > 0.3;
  vError = hash(i * 3u + 2u) < motion.w ? 1.0 : 0.0;
  vAlpha = style.z;
  gl_Position = shown ? place(mix(from, to, where - float(k))) : vec4(2.0, 2.0, 2.0, 1.0);
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
in vec4 aBox;                // x, y, half width, half height
in vec4 aStyle;              // health, saturation, shape, flags
in float aNewest;            // share of the newest version, or less than zero
out vec2 vAt;
out vec2 vHalf;
flat out vec4 vStyle;
flat out float vNewest;
void main() {
  vec2 corner = vec2(float(gl_VertexID % 2), float(gl_VertexID / 2)) * 2.0 - 1.0;
  float border = 6.0 / uView.z + (aStyle.z > 4.5 ? 6.0 : 0.0);
  vHalf = aBox.zw;
  vAt = corner * (aBox.zw + border);
  vStyle = aStyle;
  vNewest = aNewest;
  gl_Position = place(aBox.xy + vAt);
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
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) {
      throw new Error(`shader: ${gl.getShaderInfoLog(shader) ?? "lost"}`);
    }
    gl.attachShader(built, shader);
  }
  gl.linkProgram(built);
  if (!gl.getProgramParameter(built, gl.LINK_STATUS)) throw new Error(`program: ${gl.getProgramInfoLog(built) ?? "lost"}`);
  return built;
}

function texture(gl: WebGL2RenderingContext): WebGLTexture {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  return made;
}

/** `null` where there is no WebGL2 or too small a texture: the caller draws in two dimensions instead. */
export function glRenderer(canvas: HTMLCanvasElement, first: Palette): Renderer | null {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "low-power" });
  if (!gl) return null;
  const edgeProgram = program(gl, EDGE_VS, EDGE_FS);
  const particleProgram = program(gl, PARTICLE_VS, PARTICLE_FS);
  const nodeProgram = program(gl, NODE_VS, NODE_FS);
  const points = texture(gl);
  const rows = texture(gl);
  const edgeOrder = gl.createBuffer();
  const nodeBuffer = gl.createBuffer();
  const rowsMax = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;

  const edgeArray = gl.createVertexArray();
  gl.bindVertexArray(edgeArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, edgeOrder);
  const aEdge = gl.getAttribLocation(edgeProgram, "aEdge");
  gl.enableVertexAttribArray(aEdge);
  gl.vertexAttribPointer(aEdge, 1, gl.FLOAT, false, 4, 0);
  gl.vertexAttribDivisor(aEdge, 1);

  const nodeArray = gl.createVertexArray();
  gl.bindVertexArray(nodeArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, nodeBuffer);
  for (const [name, offset] of [["aBox", 0], ["aStyle", 16]] as const) {
    const at = gl.getAttribLocation(nodeProgram, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, 4, gl.FLOAT, false, NODE_FLOATS * 4, offset);
    gl.vertexAttribDivisor(at, 1);
  }
  const aNewest = gl.getAttribLocation(nodeProgram, "aNewest");
  gl.enableVertexAttribArray(aNewest);
  gl.vertexAttribPointer(aNewest, 1, gl.FLOAT, false, NODE_FLOATS * 4, 32);
  gl.vertexAttribDivisor(aNewest, 1);
  const bare = gl.createVertexArray();

  const uniform = (of: WebGLProgram, name: string) => gl.getUniformLocation(of, name);
  const uniforms = [edgeProgram, particleProgram, nodeProgram].map((of) => ({
    of,
    view: uniform(of, "uView"),
    size: uniform(of, "uSize"),
    colors: uniform(of, "uColors"),
    points: uniform(of, "uPoints"),
    rows: uniform(of, "uRows"),
  }));
  const uAge = uniform(particleProgram, "uAge");
  const uSlots = uniform(particleProgram, "uSlots");
  const uStride = uniform(edgeProgram, "uStride");
  const uDot = uniform(particleProgram, "uDot");
  const uPanel = uniform(nodeProgram, "uPanel");
  const uAccent = uniform(nodeProgram, "uAccent");

  let palette = first;
  let edgeCount = 0;
  let nodeCount = 0;

  return {
    budget: 12_000,
    theme(next) {
      palette = next;
    },
    load(geo) {
      edgeCount = Math.min(geo.view.edges.length, rowsMax);
      nodeCount = geo.view.nodes.length;
      gl.bindTexture(gl.TEXTURE_2D, points);
      if (edgeCount > 0) {
        const used = geo.edgePoints.subarray(0, edgeCount * EDGE_POINTS * 2);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG32F, EDGE_POINTS, edgeCount, 0, gl.RG, gl.FLOAT, used);
      }
    },
    update(scene) {
      if (edgeCount > 0) {
        gl.bindTexture(gl.TEXTURE_2D, rows);
        const used = scene.edges.subarray(0, edgeCount * EDGE_FLOATS);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, 2, edgeCount, 0, gl.RGBA, gl.FLOAT, used);
      }
      gl.bindBuffer(gl.ARRAY_BUFFER, edgeOrder);
      gl.bufferData(gl.ARRAY_BUFFER, Float32Array.from(scene.order.filter((row) => row < edgeCount)), gl.DYNAMIC_DRAW);
      gl.bindBuffer(gl.ARRAY_BUFFER, nodeBuffer);
      gl.bufferData(gl.ARRAY_BUFFER, scene.nodes, gl.DYNAMIC_DRAW);
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
      };
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, rows);
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, points);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(...palette.background, 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
      if (edgeCount > 0) {
        use(0);
        // Strides divide the points evenly: both ends stay where they are.
        const stride = camera.scale > 0.4 ? 1 : camera.scale > 0.2 ? 3 : 5;
        gl.uniform1i(uStride, stride);
        gl.bindVertexArray(edgeArray);
        gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, ((EDGE_POINTS - 1) / stride + 1) * 2, edgeCount);
      }
      if (edgeCount > 0 && moving) {
        const slots = Math.max(1, Math.min(48, Math.floor(this.budget / edgeCount)));
        use(1);
        gl.bindVertexArray(bare);
        gl.uniform1f(uAge, age);
        gl.uniform1i(uSlots, slots);
        gl.uniform3f(uDot, ...palette.dot);
        gl.drawArrays(gl.POINTS, 0, slots * edgeCount);
      }
      if (nodeCount > 0) {
        use(2);
        gl.uniform3f(uPanel, ...palette.panel);
        gl.uniform3f(uAccent, ...palette.accent);
        gl.bindVertexArray(nodeArray);
        gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, nodeCount);
      }
    },
    dispose() {
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}
