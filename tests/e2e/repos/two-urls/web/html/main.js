// JSON is no simple type: the browser asks the api beforehand whether this page may send it.
const api = document.querySelector("meta[name=api]").content;
const options = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({name: "Ann"})};
fetch(`${api}/greetings`, options)
  .then(answer => answer.json())
  .then(({greeting}) => { document.querySelector("output").textContent = greeting; });
