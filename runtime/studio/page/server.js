// Asking the server that gave this page.
const TOKEN = new URLSearchParams(location.search).get("token") || "";

async function post(path, body, signal) {
  const sent = body instanceof Blob ? body : JSON.stringify(body);
  let reply;
  try {
    reply = await fetch(path, { method: "POST", headers: { "X-Studio-Token": TOKEN }, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the studio does not answer; is it still running in its terminal?");
  }
  if (!reply.ok) throw new Error((await reply.json()).error);
  return reply;
}
const ask = async (path, body, signal) => (await post(path, body, signal)).json();

// The lines of JSON of a reply, as they come.
async function* lines(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(text);
}
