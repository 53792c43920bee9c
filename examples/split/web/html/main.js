const api = document.querySelector("meta[name=api]").content;
const output = document.querySelector("output");

// JSON is no simple type: the browser asks the api beforehand whether this page may send it.
async function greeting(name) {
  const headers = {"Content-Type": "application/json"};
  const answer = await fetch(`${api}/greetings`, {method: "POST", headers, body: JSON.stringify({name})});
  const told = await answer.json();
  return answer.ok ? told.greeting : told.error;
}

document.querySelector("form").addEventListener("submit", async event => {
  event.preventDefault();
  const name = document.querySelector("#name").value;
  output.textContent = await greeting(name).catch(error => `The api at ${api} cannot be asked: ${error.message}`);
});
